from itertools import pairwise

import pytest
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from moslora.errors import ConfigError, DataError
from moslora.tasks.commonsense.prompt import evaluation_prompt, training_prompt
from moslora.tasks.commonsense.samples import IGNORED, prepare, select, tokenize

from .conftest import make_items

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


# How Llama 3 cuts text before it merges bytes.
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)


@pytest.fixture(scope="module", params=["begin", "begin and end"])
def like_llama3(request):
    """A byte-level tokenizer with the pieces of Llama 3's that writes <s> before a text, or <s> and </s> around it."""
    items = make_items(80, seed=3)
    bpe = Tokenizer(models.BPE())
    split = pre_tokenizers.Split(Regex(LLAMA3), behavior="isolated")
    bytes_alone = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bpe.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_alone])
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    prompts = [training_prompt(item["instruction"]) for item in items]
    # The prompts alone make a token of their last 16 blanks, as Llama 3 has one.
    texts = [*prompts, *(prompt + item["output"] for prompt, item in zip(prompts, items, strict=True))]
    bpe.train_from_iterator(texts, trainer)
    form = "<s> $A </s>" if request.param == "begin and end" else "<s> $A"
    template = processors.TemplateProcessing(single=form, special_tokens=[("<s>", 0), ("</s>", 1)])
    bpe.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=False), template])
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>")


def test_labels_are_the_authors_with_a_tokenizer_like_that_of_llama_3(like_llama3):
    """The authors count the tokens of the prompt alone, without an end of text, and ignore so many."""
    items = [*make_items(20, seed=4), ITEM, {**ITEM, "input": "with this"}]
    tokens = tokenize(items, like_llama3, max_tokens=256, train_on_inputs=False)
    whole = tokenize(items, like_llama3, max_tokens=256, train_on_inputs=True)
    for item, ids, labels, everything in zip(
        items, tokens["input_ids"], tokens["labels"], whole["labels"], strict=True
    ):
        prompt = like_llama3(training_prompt(item["instruction"], item["input"]))["input_ids"]
        count = len(prompt) - (prompt[-1] == like_llama3.eos_token_id)
        assert labels == [IGNORED] * count + ids[count:]
        assert everything == ids
        assert (ids.count(like_llama3.bos_token_id), ids.count(like_llama3.eos_token_id)) == (1, 1)
        assert like_llama3.decode(ids[count:]) == f" {item['output']}</s>"


class _WithoutOffsets:
    """A tokenizer written in Python: it cannot say where its tokens are in the text."""

    is_fast = False

    def __init__(self, tokenizer):
        self.tokenizer, self.eos_token_id = tokenizer, tokenizer.eos_token_id

    def __call__(self, texts, *, return_offsets_mapping, **settings):
        assert not return_offsets_mapping
        return self.tokenizer(texts, **settings)


def test_a_tokenizer_without_offsets_serves_for_the_loss_over_everything_only(tokenizer):
    slow = _WithoutOffsets(tokenizer)
    assert tokenize([ITEM], slow, max_tokens=256, train_on_inputs=True) == tokenize(
        [ITEM], tokenizer, max_tokens=256, train_on_inputs=True
    )
    with pytest.raises(ConfigError, match="use a fast tokenizer"):
        tokenize([ITEM], slow, max_tokens=256, train_on_inputs=False)


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
