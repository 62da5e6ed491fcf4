import gzip
import json

import pytest
from transformers import AutoTokenizer

from moslora.errors import DataError
from moslora.tasks.commonsense.data import IGNORED, prepare, read_items, tokenize
from moslora.tasks.commonsense.prompt import evaluation_prompt, training_prompt
from tests.helpers import data_folder

ITEM = {"instruction": "Which one, number 3?", "input": "", "output": "the correct answer is answer3"}


@pytest.fixture(scope="module")
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


def test_prompts_have_the_words_of_the_protocol_and_end_before_the_answer():
    prompt = training_prompt("Do it.")
    assert " ".join(prompt.split()) == (
        "Below is an instruction that describes a task. Write a response that appropriately completes the request. "
        "### Instruction: Do it. ### Response:"
    )
    assert "### Input:" in training_prompt("Do it.", "with this")
    assert evaluation_prompt("Do it.").split() == prompt.split()
    assert prompt.endswith("### Response:\n" + 16 * " ")


def test_the_loss_covers_prompt_and_answer_or_the_answer_alone(tokenizer):
    both = tokenize([ITEM], tokenizer, max_tokens=256, train_on_inputs=True)
    answer = tokenize([ITEM], tokenizer, max_tokens=256, train_on_inputs=False)
    assert both["input_ids"] == answer["input_ids"]
    assert both["labels"] == both["input_ids"]
    counted = [token for token in answer["labels"][0] if token != IGNORED]
    assert tokenizer.decode(counted).strip() == "the correct answer is answer3</s>"


def test_a_long_sample_loses_its_end_and_gets_no_end_of_text(tokenizer):
    whole = tokenize([ITEM], tokenizer, max_tokens=256, train_on_inputs=True)["input_ids"][0]
    cut = tokenize([ITEM], tokenizer, max_tokens=20, train_on_inputs=True)["input_ids"][0]
    assert whole[-1] == tokenizer.eos_token_id
    assert cut == whole[:20]


def test_samples_without_a_visible_answer_are_dropped_and_counted(tokenizer):
    long = {**ITEM, "instruction": "word " * 400}
    split = prepare([ITEM, long, ITEM], tokenizer, max_tokens=256, train_on_inputs=False, validation_size=1, seed=0)
    assert (len(split.train), len(split.validation), split.dropped) == (1, 1, 1)
    with pytest.raises(DataError, match="nothing is left to train on"):
        prepare([long], tokenizer, max_tokens=256, train_on_inputs=False, validation_size=0, seed=0)


def test_the_held_out_samples_follow_the_seed(tokenizer):
    items = [{**ITEM, "instruction": f"Number {number}?"} for number in range(30)]
    chosen = [
        prepare(items, tokenizer, max_tokens=256, train_on_inputs=True, validation_size=5, seed=seed).validation[:]
        for seed in (1, 1, 2)
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]


def test_all_real_files_are_read():
    folder = data_folder("commonsense")
    counts = {path.parent.name: len(read_items(path)) for path in folder.glob("*/test.json*")}
    assert counts == {
        "ARC-Challenge": 1172,
        "ARC-Easy": 2376,
        "boolq": 3270,
        "hellaswag": 10042,
        "openbookqa": 500,
        "piqa": 1838,
        "social_i_qa": 1954,
        "winogrande": 1267,
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[{", "Cannot read"),
        ("{}", "expected a JSON list"),
        ("[]", "expected a JSON list"),
        (json.dumps([ITEM, {"instruction": "x"}]), "Item 1 of .* has no text under output"),
        (json.dumps([{**ITEM, "output": 3}]), "Item 0 of .* has no text under output"),
    ],
)
def test_a_file_that_cannot_be_used_is_named_with_the_reason(tmp_path, content, message):
    path = tmp_path / "train.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        read_items(path)


def test_a_truncated_gzip_file_is_an_error(tmp_path):
    path = tmp_path / "train.json.gz"
    path.write_bytes(gzip.compress(json.dumps([ITEM] * 50).encode())[:-20])
    with pytest.raises(DataError, match="Cannot read"):
        read_items(path)
