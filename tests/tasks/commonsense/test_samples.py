from itertools import pairwise

import pytest
from transformers import AutoTokenizer

from moslora.errors import DataError
from moslora.tasks.commonsense.prompt import evaluation_prompt, training_prompt
from moslora.tasks.commonsense.samples import IGNORED, prepare, select, tokenize

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
    items = [{**ITEM, "instruction": f"Number {number}?"} for number in range(10)]
    long = {**ITEM, "instruction": "word " * 400}
    settings = {"max_tokens": 256, "train_on_inputs": False, "seed": 0}
    split = prepare([*items, long], tokenizer, validation_size=4, **settings)
    assert (len(split.train) + len(split.validation), split.dropped) == (10, 1)
    with pytest.raises(DataError, match="nothing is left to train on"):
        prepare([long], tokenizer, validation_size=0, **settings)
    with pytest.raises(DataError, match="nothing is left to train on"):
        prepare([ITEM], tokenizer, validation_size=1, **settings)


def test_the_held_out_samples_follow_the_seed(tokenizer):
    items = [{**ITEM, "instruction": f"Number {number}?"} for number in range(30)]
    chosen = [
        prepare(items, tokenizer, max_tokens=256, train_on_inputs=True, validation_size=5, seed=seed).validation[:]
        for seed in (1, 1, 2)
    ]
    assert chosen[0] == chosen[1]
    assert chosen[0] != chosen[2]


def _numbers(items):
    return {item["instruction"] for item in items}


def test_fractions_are_nested_and_hold_out_the_same_samples():
    items = [{**ITEM, "instruction": f"Number {number}?"} for number in range(400)]
    chosen = [select(items, validation_size=40, fraction=share, seed=1) for share in (0.125, 0.25, 0.5, 0.75, 1.0)]
    assert [len(each.train) for each in chosen] == [45, 90, 180, 270, 360]
    for small, large in pairwise(chosen):
        assert _numbers(small.train) < _numbers(large.train)
        assert small.validation == large.validation
    assert _numbers(chosen[-1].train) | _numbers(chosen[-1].validation) == _numbers(items)


def test_fractions_follow_the_seed_and_not_the_order_of_the_files():
    items = [{**ITEM, "instruction": f"Number {number}?"} for number in range(200)]
    one, same, other = (
        _numbers(select(given, validation_size=0, fraction=0.25, seed=seed).train)
        for given, seed in ((items, 1), (items[::-1], 1), (items, 2))
    )
    assert one == same
    # Two independent quarters of 200 have 12.5 items in common on average, with a standard deviation below 3.
    assert abs(len(one & other) - 12.5) < 12


def test_a_fraction_has_the_share_of_every_part_that_chance_gives_it():
    items = [{**ITEM, "instruction": f"{kind} {number}?"} for kind in "abcd" for number in range(1000)]
    chosen = select(items, validation_size=0, fraction=0.25, seed=0).train
    for kind in "abcd":  # 250 expected, standard deviation 12
        assert abs(sum(item["instruction"].startswith(kind) for item in chosen) - 250) < 50
