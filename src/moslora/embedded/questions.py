"""Multiple-choice questions about the small world, in the JSON format of LLM-Adapters. Pure Python.

toy-facts      one trait of one thing, which the model knows from pretraining; four options
toy-reasoning  which of four things is the heaviest or the lightest: four known weights have to be compared

No question of a benchmark recurs in training: toy-facts holds out (thing, trait) pairs, and no two things that a
question of toy-reasoning compares are compared in training.
"""

import json
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from random import Random
from typing import NamedTuple

from .world import QUESTIONS, TRAITS, Thing, things

BENCHMARKS = ("toy-facts", "toy-reasoning")
TEST_SIZE = 240  # questions of each benchmark
TRAIN_SIZE = 1200  # of each kind
OPTIONS = 4

Item = dict[str, str]


class Question(NamedTuple):
    """A question with one right option."""

    text: str
    options: tuple[str, ...]
    right: int  # index into options
    about: frozenset[tuple[str, str]]  # what must not recur: (thing, trait), or pairs of compared things


class Questions(NamedTuple):
    """All questions of one seed."""

    train: list[Question]
    test: dict[str, list[Question]]  # benchmark -> questions


def draw_questions(seed: int = 0) -> Questions:
    """Training questions, mixed, and `TEST_SIZE` held-out ones of each benchmark."""
    draw = Random(seed)
    facts_train, facts_test = _facts(draw)
    reasoning_test = _comparisons(draw, TEST_SIZE, avoid=frozenset())
    reasoning_train = _comparisons(draw, TRAIN_SIZE, avoid=_all_about(reasoning_test))
    train = facts_train + reasoning_train
    draw.shuffle(train)
    return Questions(train, dict(zip(BENCHMARKS, (facts_test, reasoning_test), strict=True)))


def write_questions(folder: str | Path, seed: int = 0) -> None:
    """Write FOLDER/train.json and FOLDER/BENCHMARK/test.json of every benchmark.

    Args:
        folder: made if missing; files of an earlier call are overwritten.
        seed: decides which questions are drawn and which are held out.
    """
    folder = Path(folder)
    questions = draw_questions(seed)
    _write(folder / "train.json", questions.train)
    for name, held_out in questions.test.items():
        _write(folder / name / "test.json", held_out)


def to_item(question: Question) -> Item:
    """A question as LLM-Adapters writes it: instruction, input, output, answer. The answer is the option's word."""
    answer, options = question.options[question.right], ", ".join(question.options)
    return {
        "instruction": f"Please choose the correct answer to the question: {question.text}\n\nAnswers: {options}",
        "input": "",
        "output": f"the correct answer is {answer}",
        "answer": answer,
    }


def _write(path: Path, questions: Iterable[Question]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([to_item(question) for question in questions], indent=1) + "\n", encoding="utf-8")


def _all_about(questions: Iterable[Question]) -> frozenset[tuple[str, str]]:
    return frozenset().union(*(question.about for question in questions))


def _facts(draw: Random) -> tuple[list[Question], list[Question]]:
    """Training and held-out questions of toy-facts; a training pair recurs with other wrong options."""
    pairs = [(thing, trait) for thing in things() for trait in TRAITS]
    draw.shuffle(pairs)
    held_out, known = pairs[:TEST_SIZE], pairs[TEST_SIZE:]
    train = [known[number % len(known)] for number in range(TRAIN_SIZE)]
    return [_fact(draw, *pair) for pair in train], [_fact(draw, *pair) for pair in held_out]


def _fact(draw: Random, thing: Thing, trait: str) -> Question:
    """Wrong options are traits of other things, as frequent as in the world, so that frequency tells nothing."""
    options = [getattr(thing, trait)]
    while len(options) < OPTIONS:
        wrong = getattr(draw.choice(things()), trait)
        if wrong not in options:
            options.append(wrong)
    about = frozenset({(thing.name, trait)})
    return _shuffled(draw, QUESTIONS[trait].format(name=thing.name), options, about)


def _comparisons(draw: Random, count: int, avoid: frozenset[tuple[str, str]]) -> list[Question]:
    found: list[Question] = []
    while len(found) < count:
        question = _comparison(draw)
        if question and not question.about & avoid:
            found.append(question)
    return found


def _comparison(draw: Random) -> Question | None:
    """Which of four things is the heaviest or lightest; None if it is not one alone."""
    word, sign = draw.choice((("heaviest", -1), ("lightest", 1)))
    ranked = sorted(draw.sample(things(), OPTIONS), key=lambda thing: sign * thing.weight)
    if ranked[0].weight == ranked[1].weight:
        return None
    names = [thing.name for thing in ranked]
    about = frozenset(combinations(sorted(names), 2))
    return _shuffled(draw, f"Which of these is the {word}?", names, about)


def _shuffled(draw: Random, text: str, options: list[str], about: frozenset[tuple[str, str]]) -> Question:
    """A question whose first option is the right one, with its options in random order."""
    order = draw.sample(options, len(options))
    return Question(text, tuple(order), order.index(options[0]), about)
