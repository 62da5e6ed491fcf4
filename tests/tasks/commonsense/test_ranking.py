"""Ranking with shared prefixes against one plain forward pass an option, in float64."""

import pytest
import torch
import transformers

from moslora.tasks.commonsense.answering import Answerer
from moslora.tasks.commonsense.branches import read_prefix
from moslora.tasks.commonsense.prompt import evaluation_prompt
from moslora.tasks.commonsense.ranking import rank, tokenize_choice
from moslora.tasks.commonsense.score import score
from tests.tasks.commonsense.conftest import ANSWERS, make_items

OPTIONS = {
    "one token apart": ANSWERS,
    "of several tokens": ("a round ball", "something old and very cold", "red", "Which"),
    "one begins another": ("red", "red and blue", "cold"),
    "all alone": ("cold",),
}


@pytest.fixture(scope="module")
def model_and_tokenizer(tiny_model):
    model = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, dtype=torch.float64).eval()
    with torch.no_grad():  # as it comes, it finds everything about as likely
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(8)
    return model, transformers.AutoTokenizer.from_pretrained(tiny_model)


def _plain_scores(model, tokenizer, item, options) -> list[float]:
    """Log-probability of each option's tokens after those that all share; one forward pass an option."""
    texts = [evaluation_prompt(item["instruction"]) + "the correct answer is " + option for option in options]
    ids = [tokenizer(text)["input_ids"] for text in texts]
    if any(a != b and a == b[: len(a)] for a in ids for b in ids) or len(ids) == 1:
        ids = [[*row, tokenizer.eos_token_id] for row in ids]
    shared = 0
    while len(ids) > 1 and len({tuple(row[: shared + 1]) for row in ids}) == 1:
        shared += 1
    shared = shared if len(ids) > 1 else len(ids[0]) - 1
    scores = []
    for row in ids:
        with torch.no_grad():
            terms = model(input_ids=torch.tensor([row])).logits[0].log_softmax(-1)
        scores.append(sum(terms[place - 1, row[place]].item() for place in range(shared, len(row))))
    return scores


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_scores_are_the_plain_sums_of_log_probabilities(model_and_tokenizer, options):
    model, tokenizer = model_and_tokenizer
    items = make_items(7, seed=5)
    choices = [tokenize_choice(item, options, tokenizer, "authors") for item in items]
    prefix = read_prefix(model, [choice.shared for choice in choices])
    assert prefix.length > 20
    found = torch.tensor(rank(model, choices, prefix))
    expected = torch.tensor([_plain_scores(model, tokenizer, item, options) for item in items])
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    assert expected.std() > 0.1 or len(options) == 1


def test_questions_with_different_options_share_a_batch(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    items = make_items(4, seed=6)
    choices = [
        tokenize_choice(item, each, tokenizer, "authors") for item, each in zip(items, OPTIONS.values(), strict=True)
    ]
    for item, options, found in zip(items, OPTIONS.values(), rank(model, choices), strict=True):
        expected = _plain_scores(model, tokenizer, item, options)
        assert found == pytest.approx(expected, rel=1e-5, abs=1e-5)


def test_the_prediction_is_the_likeliest_of_the_options_that_the_question_offers(model_and_tokenizer):
    model, tokenizer = model_and_tokenizer
    items = make_items(9, seed=7)
    items[4]["instruction"] = items[4]["instruction"].replace("answer1/answer2/", "")
    answerer = Answerer(model, tokenizer, decoding="ranking", batch_size=4)
    rows = sorted((row for batch in answerer.answer(items, ANSWERS) for row in batch), key=lambda row: row["index"])
    assert list(rows[4]["scores"]) == ["answer3", "answer4"]
    for item, row in zip(items, rows, strict=True):
        plain = dict(zip(row["scores"], _plain_scores(model, tokenizer, item, tuple(row["scores"])), strict=True))
        assert row["prediction"] == max(plain, key=plain.get)
        assert row["label"] == item["answer"]


def test_ties_are_counted_and_go_to_the_first_option():
    rows = [
        {"scores": {"a": -1.0, "b": -1.0, "c": -2.0}, "prediction": "a", "label": "b"},
        {"scores": {"a": -1.0, "b": -3.0, "c": -3.0}, "prediction": "a", "label": "a"},
    ]
    assert score(rows)["tied"] == 1
    assert score(rows)["correct"] == 1
    assert score([{"prediction": "a", "label": "a"}])["tied"] == 0
