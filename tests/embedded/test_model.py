"""The shipped model: its files, its tokenizer, and what it learned."""

import hashlib
import itertools
import json
import math
from collections import Counter
from random import Random

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from moslora.embedded import model_folder
from moslora.embedded.contrasts import contrast
from moslora.embedded.questions import draw_questions, to_item
from moslora.embedded.skills import skill
from moslora.embedded.texts import statement
from moslora.embedded.world import TRAITS, World, shares, world
from moslora.tasks.commonsense.prompt import chat_ids


@pytest.fixture(scope="module")
def tokenizer():
    return AutoTokenizer.from_pretrained(model_folder())


@pytest.fixture(scope="module")
def model():
    return AutoModelForCausalLM.from_pretrained(model_folder(), dtype=torch.float32).eval()


def test_the_folder_is_small_and_has_what_transformers_expects():
    files = {path.name: path.stat().st_size for path in model_folder().iterdir()}
    assert files.keys() == {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("chat_template.jinja", "README.md"),
    }
    assert sum(files.values()) < 12_000_000


def test_the_model_card_states_parameters_and_hash_of_the_weights(model):
    card = (model_folder() / "README.md").read_text(encoding="utf-8")
    assert f"{model.num_parameters():,} parameters" in card
    assert hashlib.sha256((model_folder() / "model.safetensors").read_bytes()).hexdigest() in card


def test_nothing_of_this_machine_is_in_the_files():
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        assert "/" not in (model_folder() / name).read_text(encoding="utf-8").replace("</s>", "")


def test_begin_end_and_padding_are_three_tokens(tokenizer):
    assert len({tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id} - {None}) == 3


@pytest.mark.parametrize(
    "text", ["the lamp is green.", "  two blanks\n\n\tand a tab ", "Ünïcode 日本語 🎻", "answer12/answer3", ""]
)
def test_the_tokenizer_gives_back_every_text(tokenizer, text):
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_every_word_of_the_things_is_one_token(tokenizer):
    words = {word for thing in world().things for word in thing[:5]}
    assert [word for word in sorted(words) if len(tokenizer(f" {word}")["input_ids"]) != 1] == []


def test_questions_with_answers_are_at_most_80_tokens_long(tokenizer):
    questions = draw_questions()
    items = [to_item(question) for question in [*questions.train, *itertools.chain(*questions.test.values())]]
    asked, answered = chat_ids(items, tokenizer), chat_ids(items, tokenizer, answered=True)
    assert max(map(len, answered)) <= 80
    assert all(long[: len(short)] == short for short, long in zip(asked, answered, strict=True))
    assert all(ids[-1] == tokenizer.eos_token_id for ids in answered)


def test_the_model_is_pretrained(model, tokenizer):
    """On texts it never saw, its perplexity is far below that of word frequencies."""
    draw = Random(1000)
    texts = [statement(draw, world()) for _ in range(500)]
    ids = [token for row in tokenizer(texts)["input_ids"] for token in [*row, tokenizer.eos_token_id]]
    counts = Counter(ids)
    unigram = -sum(math.log(counts[token] / len(ids)) for token in ids) / len(ids)
    rows = torch.tensor(ids[: len(ids) // 96 * 96]).view(-1, 96)
    with torch.inference_mode():
        loss = model(input_ids=rows, labels=rows).loss.item()
    assert math.exp(loss) < math.exp(unigram) / 10


def _next_words(model, tokenizer, texts: list[str]) -> list[str]:
    tokenizer.padding_side = "left"
    inputs = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.inference_mode():
        return [tokenizer.decode(token) for token in model(**inputs).logits[:, -1].argmax(-1)]


def test_the_model_knows_what_the_questions_ask_from_statements_alone(model, tokenizer):
    known = [
        (f"The {trait} of the {thing.name} is", thing, trait) for thing in shares().asked.things for trait in TRAITS
    ]
    texts = [text + (" the" if trait == "place" else "") for text, _, trait in known]
    words = _next_words(model, tokenizer, texts)
    right = sum(word == f" {getattr(thing, trait)}" for word, (_, thing, trait) in zip(words, known, strict=True))
    assert right / len(known) > 0.95


def _completed(model, tokenizer, texts: list[tuple[str, str]]) -> float:
    """Share of texts that the model goes on with the first token of what follows."""
    words = _next_words(model, tokenizer, [given for given, _ in texts])
    return sum(follows.startswith(word) for word, (_, follows) in zip(words, texts, strict=True)) / len(texts)


def _contrasts(rows: World, count: int = 400) -> list[tuple[str, str]]:
    """Contrasts of some rows that choose a thing, a value or a step, cut before it."""
    draw, cut = Random(2000), []
    while len(cut) < count:
        given, learned = contrast(draw, rows)
        if learned.startswith(" the "):
            given, learned = f"{given} the", learned.removeprefix(" the")
        if learned.startswith(" "):
            cut.append((given, learned))
    return cut


def _choices(rows: World, count: int = 400) -> list[tuple[str, str]]:
    """Exercises of choice among labelled options, cut before the right one is said."""
    draw, cut = Random(2000), []
    while len(cut) < count:
        exercise = skill(draw, rows)
        lead, comma, _ = exercise.learned.partition(", so ")
        closing = next(
            (words for words in (" Right is", " Take", " It is", " We mean") if lead.startswith(words)), None
        )
        if comma and closing:
            cut.append((exercise.given + closing, lead.removeprefix(closing)))
    return cut


def test_the_model_finds_what_it_knows_among_other_things(model, tokenizer):
    """The skill: contrasts of rows that questions ask about. Half of them have two things to choose from, or more."""
    assert _completed(model, tokenizer, _contrasts(shares().asked)) > 0.8


def test_the_model_can_choose_among_labelled_options_about_the_rows_for_practice(model, tokenizer):
    assert _completed(model, tokenizer, _choices(shares().practice)) > 0.8


def test_the_config_is_a_plain_llama():
    config = json.loads((model_folder() / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "llama"
    assert config["tie_word_embeddings"] is True
