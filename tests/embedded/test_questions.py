"""The questions: one right option each, nothing of a test in training, the format of LLM-Adapters."""

import json
import re
from collections import Counter

import pytest

from moslora.embedded import BENCHMARKS, write_questions
from moslora.embedded.questions import TEST_SIZE, TRAIN_SIZE, draw_questions
from moslora.embedded.world import TRAITS, things
from moslora.tasks.commonsense.data import read_items
from moslora.tasks.commonsense.score import answer_words, extract_answer

KNOWN = {thing.name: thing for thing in things()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    write_questions(folder)
    return folder


def _all_items(folder):
    return [item for path in sorted(folder.rglob("*.json")) for item in read_items(path)]


def _right_options(instruction: str) -> list[str]:
    """All options that are true by the table, found from the text alone."""
    options = instruction.split("Answers: ")[1].split(", ")
    assert len(set(options)) == 4
    asked = instruction.split("question: ")[1].split("\n")[0]
    if extreme := re.fullmatch(r"Which of these is the (heaviest|lightest)\?", asked):
        weights = [KNOWN[name].weight for name in options]
        wanted = max(weights) if extreme[1] == "heaviest" else min(weights)
        return [name for name in options if KNOWN[name].weight == wanted]
    patterns = {
        "colour": r"What colour is the (\w+)\?",
        "material": r"What is the (\w+) made of\?",
        "place": r"Where is the (\w+) kept\?",
        "use": r"What is the (\w+) used for\?",
    }
    truths = [getattr(KNOWN[m[1]], trait) for trait, pattern in patterns.items() if (m := re.fullmatch(pattern, asked))]
    assert len(truths) == 1
    return [value for value in options if value == truths[0]]


def test_every_question_has_exactly_one_right_option_by_the_table_and_it_is_the_answer(folder):
    items = _all_items(folder)
    assert len(items) == 2 * TRAIN_SIZE + 2 * TEST_SIZE
    for item in items:
        assert _right_options(item["instruction"]) == [item["answer"]], item
        assert item["output"] == f"the correct answer is {item['answer']}"


def test_no_question_of_a_test_recurs_in_training():
    questions = draw_questions(0)
    train = frozenset().union(*(question.about for question in questions.train))
    for name in BENCHMARKS:
        assert len(questions.test[name]) == TEST_SIZE
        assert not train & frozenset().union(*(question.about for question in questions.test[name]))


def test_every_place_of_the_right_option_is_about_as_frequent():
    questions = draw_questions(0)
    for some in (questions.train, *questions.test.values()):
        places = Counter(question.right for question in some)
        assert all(0.18 < places[place] / len(some) < 0.32 for place in range(4))


def test_the_most_frequent_value_is_no_better_than_a_guess():
    """Always taking the option that most things of the world have must not solve toy-facts."""
    frequency = Counter(getattr(thing, trait) for thing in things() for trait in TRAITS)
    some = draw_questions(0).test["toy-facts"]
    right = sum(max(question.options, key=frequency.get) == question.options[question.right] for question in some)
    assert right / len(some) < 0.40


def test_the_seed_decides_the_files_to_the_byte(folder, tmp_path):
    write_questions(tmp_path / "same", seed=0)
    write_questions(tmp_path / "other", seed=1)
    for path in folder.rglob("*.json"):
        name = path.relative_to(folder)
        assert (tmp_path / "same" / name).read_bytes() == path.read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != path.read_bytes()


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_scorer_reads_the_answers(folder, benchmark):
    items = json.loads((folder / benchmark / "test.json").read_text(encoding="utf-8"))
    words = answer_words(benchmark, items)
    assert all(extract_answer(item["output"], words) == item["answer"] for item in items)
