"""The shipped model: its files, its tokenizer, and what it learned."""

import hashlib
import itertools
import json
import math
from collections import Counter

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from moslora.embedded import model_folder
from moslora.embedded.build import SEED
from moslora.embedded.questions import draw_questions, to_item
from moslora.embedded.world import QUESTIONS, documents, things
from moslora.tasks.commonsense.prompt import evaluation_prompt, training_prompt


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
        "README.md",
    }
    assert sum(files.values()) < 3_000_000


def test_the_model_card_states_parameters_and_hash_of_the_weights(model):
    card = (model_folder() / "README.md").read_text(encoding="utf-8")
    assert f"{model.num_parameters():,} parameters" in card
    assert hashlib.sha256((model_folder() / "model.safetensors").read_bytes()).hexdigest() in card


def test_both_precisions_hold_the_same_weights(model):
    assert all(torch.equal(weight, weight.bfloat16().float()) for weight in model.state_dict().values())


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


def test_every_word_of_the_world_is_one_token(tokenizer):
    words = {word for thing in things() for word in thing[:5]}
    assert [word for word in sorted(words) if len(tokenizer(f" {word}")["input_ids"]) != 1] == []


def test_prompts_with_answers_are_at_most_100_tokens_long(tokenizer):
    questions = draw_questions()
    for question in [*questions.train, *itertools.chain(*questions.test.values())]:
        item = to_item(question)
        for prompt in (training_prompt, evaluation_prompt):
            text = prompt(item["instruction"])
            ids = tokenizer(text + item["output"])["input_ids"]
            assert len(ids) + 1 <= 100
            assert ids[: len(tokenizer(text)["input_ids"])] == tokenizer(text)["input_ids"]


def test_the_model_is_pretrained(model, tokenizer):
    """On texts it never saw, its perplexity is far below that of word frequencies."""
    texts = list(itertools.islice(documents(SEED + 1000), 500))
    ids = [token for row in tokenizer(texts)["input_ids"] for token in [*row, tokenizer.eos_token_id]]
    counts = Counter(ids)
    unigram = -sum(math.log(counts[token] / len(ids)) for token in ids) / len(ids)
    rows = torch.tensor(ids[: len(ids) // 96 * 96]).view(-1, 96)
    with torch.inference_mode():
        loss = model(input_ids=rows, labels=rows).loss.item()
    assert math.exp(loss) < math.exp(unigram) / 10


def test_the_model_knows_the_world(model, tokenizer):
    asked = [
        (QUESTIONS[trait].format(name=thing.name), getattr(thing, trait)) for thing in things() for trait in QUESTIONS
    ]
    tokenizer.padding_side = "left"
    inputs = tokenizer([f"{question} The answer is" for question, _ in asked], padding=True, return_tensors="pt")
    with torch.inference_mode():
        best = model(**inputs).logits[:, -1].argmax(-1)
    right = sum(tokenizer.decode(token) == f" {value}" for token, (_, value) in zip(best, asked, strict=True))
    assert right / len(asked) > 0.95


def test_the_config_is_a_plain_llama():
    config = json.loads((model_folder() / "config.json").read_text(encoding="utf-8"))
    assert config["model_type"] == "llama"
    assert config["tie_word_embeddings"] is True
