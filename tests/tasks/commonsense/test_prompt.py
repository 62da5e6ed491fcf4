"""Chat templates: what is trained follows what evaluation asks, token for token."""

import shutil

import peft
import pytest
from transformers import AutoModelForCausalLM, AutoTokenizer

from moslora import runs
from moslora.errors import ConfigError
from moslora.tasks.commonsense.config import CommonsenseEvalConfig, CommonsenseTrainConfig
from moslora.tasks.commonsense.data import read_items
from moslora.tasks.commonsense.evaluate import evaluate
from moslora.tasks.commonsense.prompt import evaluation_ids, evaluation_prompt, stop_ids
from moslora.tasks.commonsense.samples import IGNORED, tokenize
from moslora.tasks.commonsense.train import train

# The form of Llama 3 Instruct: headers, stripped contents, a token that ends a turn, an open answer when asked for.
TEMPLATE = """{{ bos_token }}{% for message in messages %}<|head|>{{ message['role'] }}<|/head|>

{{ message['content'] | trim }}<|turn|>{% endfor %}{% if add_generation_prompt %}<|head|>assistant<|/head|>

{% endif %}"""
ITEMS = [
    {"instruction": " Which one, number 3?", "input": "", "output": "the correct answer is answer3"},
    {"instruction": "Is it so?", "input": "it is", "output": "the correct answer is true"},
]


@pytest.fixture
def tokenizer(tiny_model):
    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.fixture
def instruct(tokenizer):
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|head|>", "<|/head|>", "<|turn|>"]})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_the_authors_prompt_is_one_text(tokenizer):
    prompt = evaluation_prompt("Is it so?", "it is")
    assert evaluation_ids(ITEMS[1:], tokenizer, "authors") == [tokenizer(prompt)["input_ids"]]


def test_a_chat_prompt_is_the_template_and_ends_where_the_answer_begins(instruct):
    first, second = (instruct.decode(ids) for ids in evaluation_ids(ITEMS, instruct, "chat"))
    opened = "<|turn|><|head|>assistant<|/head|>\n\n"
    assert first == f"<s><|head|>user<|/head|>\n\nWhich one, number 3?{opened}"
    assert second == f"<s><|head|>user<|/head|>\n\nIs it so?\n\nit is{opened}"


@pytest.mark.parametrize("on_inputs", [True, False])
def test_chat_training_continues_the_prompt_of_evaluation_and_ends_the_turn(instruct, on_inputs):
    tokens = tokenize(ITEMS, instruct, prompt="chat", max_tokens=256, train_on_inputs=on_inputs)
    asked = evaluation_ids(ITEMS, instruct, "chat")
    for item, prompt, row, labels in zip(ITEMS, asked, tokens["input_ids"], tokens["labels"], strict=True):
        assert row[: len(prompt)] == prompt
        assert row.count(instruct.bos_token_id) == 1
        assert instruct.decode(row[len(prompt) :]) == item["output"] + "<|turn|>"
        assert labels == (row if on_inputs else [IGNORED] * len(prompt) + row[len(prompt) :])


def test_a_long_chat_sample_is_cut_at_the_end(instruct):
    whole = tokenize(ITEMS, instruct, prompt="chat", max_tokens=256, train_on_inputs=False)
    cut = tokenize(ITEMS, instruct, prompt="chat", max_tokens=20, train_on_inputs=False)
    for name, rows in whole.items():
        assert cut[name] == [row[:20] for row in rows]


def test_an_answer_ends_with_the_text_or_the_turn(instruct):
    turn = instruct.convert_tokens_to_ids("<|turn|>")
    assert stop_ids(instruct, "authors") == [instruct.eos_token_id]
    assert stop_ids(instruct, "chat") == [instruct.eos_token_id, turn]
    instruct.eos_token = "<|turn|>"
    assert stop_ids(instruct, "chat") == [turn]


def test_a_tokenizer_without_a_template_is_refused(tokenizer):
    with pytest.raises(ConfigError, match=r"no chat template.*--prompt authors"):
        evaluation_ids(ITEMS, tokenizer, "chat")


def test_a_template_that_cannot_be_used_is_refused_with_its_own_reason(instruct):
    instruct.chat_template = "{{ raise_exception('a system message is needed') }}"
    with pytest.raises(ConfigError, match="a system message is needed"):
        evaluation_ids(ITEMS, instruct, "chat")


def test_a_template_that_changes_the_prompt_once_it_is_answered_is_refused(instruct):
    instruct.chat_template = "{{ messages | length }}" + TEMPLATE
    with pytest.raises(ConfigError, match="writes another prompt"):
        tokenize(ITEMS, instruct, prompt="chat", max_tokens=256, train_on_inputs=True)


def test_an_instruct_model_is_trained_and_asked_in_its_own_template(tiny_model, questions, tmp_path):
    folder = tmp_path / "instruct"
    shutil.copytree(tiny_model, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE.replace("<|turn|>", "</s>")  # ordinary text for the headers, no new tokens
    tokenizer.save_pretrained(folder)
    config = CommonsenseTrainConfig(
        model=str(folder),
        data=(str(questions / "train.json"),),
        prompt="chat",
        target_modules=("all-linear",),
        learning_rate=2e-2,
        max_steps=5,
        warmup_steps=1,
    )
    train(config, tmp_path / "run")
    asked = {"benchmarks": ("toy",), "decoding": "greedy", "max_new_tokens": 10, "limit": 4, "early_stop": False}
    evaluate(CommonsenseEvalConfig(run=tmp_path / "run", data=questions, **asked))
    rows = runs.read_rows(tmp_path / "run" / "eval" / "predictions" / "toy.jsonl")
    assert len(rows) == 4

    adapter = tmp_path / "run" / "adapter"
    model = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), adapter)

    def continued(text):
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
        stop = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": 0}
        told = model.generate(input_ids=ids, max_new_tokens=10, do_sample=False, **stop)
        return tokenizer.decode(told[0, ids.shape[1] :], skip_special_tokens=True)

    for row, item in zip(rows, read_items(questions / "toy" / "test.json"), strict=False):
        opened = f"<s><|head|>user<|/head|>\n\n{item['instruction']}</s><|head|>assistant<|/head|>\n\n"
        assert row["output"] == continued(opened)
        assert row["output"] != continued("<s>" + evaluation_prompt(item["instruction"]))
