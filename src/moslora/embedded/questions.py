"""Eight small benchmarks about the world, in the JSON format of LLM-Adapters. Pure Python.

Each has the form of one of the paper's eight: the number of options, the words for them, what has to be known.

toy-boolq       whether a statement about a thing is true
toy-piqa        which of two things serves a purpose
toy-siqa        why people do something; three motives
toy-hellaswag   how a task goes on; four steps
toy-winogrande  which of two things a sentence means
toy-arc-e       one trait of a thing; four values
toy-arc-c       which of four things is the heaviest or the lightest: four known weights have to be compared
toy-obqa        what brings what; four causes or effects

The answer is the right option itself, not its number: a model as small as the embedded one learns to say what is right,
and hardly to find the number of something it has only thought.

A row of the world that a test asks about, its right answer or one of its things, is in no question of training.
"""

import json
from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from pathlib import Path
from random import Random
from typing import NamedTuple

from .texts import extreme
from .world import TRAITS, Thing, World, of_tables, other_values, shares, split, trait_values

TRAIN_SHARE = 0.6  # of the rows that questions ask about
TRAIN_SIZE = 500  # questions of each kind
TEST_SIZE = 100  # of each benchmark
PEOPLE = ("Ada", "Ben", "Cora", "Dan", "Eva", "Finn", "Greta", "Hugo", "Iris", "Jan", "Karla", "Leo")

Item = dict[str, str]

_TRAIT_QUESTIONS = {
    "colour": "Which colour does the {name} have?",
    "material": "What was the {name} made from?",
    "place": "Where would you find the {name}?",
    "use": "Why would you need the {name}?",
}
_CLUES = {"colour": "is {value}", "material": "is made of {value}", "place": "is kept in the {value}"}


class Question(NamedTuple):
    """A question with one right option."""

    text: str
    options: tuple[str, ...]
    right: int  # index into options


Kind = Callable[[Random, World], Question]


class Questions(NamedTuple):
    """All questions of one seed."""

    train: list[Question]
    test: dict[str, list[Question]]  # benchmark -> questions


def draw_questions(seed: int = 0) -> Questions:
    """Training questions of all kinds, mixed, and `TEST_SIZE` held-out ones of each benchmark."""
    draw = Random(seed)
    tables = [split(table, TRAIN_SHARE, draw) for table in shares().asked]
    known, held_out = map(of_tables, zip(*tables, strict=True))
    train = [question for kinds in _KINDS.values() for question in _different(draw, kinds, known, TRAIN_SIZE)]
    test = {name: _different(draw, kinds, held_out, TEST_SIZE) for name, kinds in _KINDS.items()}
    draw.shuffle(train)
    return Questions(train, test)


def write_questions(folder: str | Path, seed: int = 0) -> None:
    """Write FOLDER/train.json and FOLDER/BENCHMARK/test.json of every benchmark.

    Args:
        folder: made if missing; files of an earlier call are overwritten.
        seed: decides which rows are held out and which questions are drawn.
    """
    folder = Path(folder)
    questions = draw_questions(seed)
    _write(folder / "train.json", questions.train)
    for name, held_out in questions.test.items():
        _write(folder / name / "test.json", held_out)


def to_item(question: Question) -> Item:
    """A question as LLM-Adapters writes it: instruction, input, output, answer."""
    answer = question.options[question.right]
    return {
        "instruction": f"{question.text}\n\nAnswer format: {'/'.join(question.options)}",
        "input": "",
        "output": f"the correct answer is {answer}",
        "answer": answer,
    }


def _write(path: Path, questions: Iterable[Question]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([to_item(question) for question in questions], indent=1) + "\n", encoding="utf-8")


def _different(draw: Random, kinds: Sequence[Kind], rows: World, count: int) -> list[Question]:
    """`count` questions, equally many of each kind, no two of them the same to the letter."""
    found: dict[Question, None] = {}
    for number, kind in enumerate(kinds, 1):
        while len(found) < count * number // len(kinds):
            found[kind(draw, rows)] = None
    return draw.sample(list(found), count)


def _question(draw: Random, text: str, right: str, wrong: Sequence[str]) -> Question:
    options = draw.sample((right, *wrong), len(wrong) + 1)
    return Question(text, tuple(options), options.index(right))


def _true(draw: Random, rows: World) -> Question:
    thing, trait = draw.choice(rows.things), draw.choice(TRAITS)
    return _statement(thing, trait, getattr(thing, trait), holds=True)


def _false(draw: Random, rows: World) -> Question:
    thing, trait = draw.choice(rows.things), draw.choice(TRAITS)
    wrong = other_values(draw, trait_values(rows, trait), getattr(thing, trait), 1)[0]
    return _statement(thing, trait, wrong, holds=False)


def _statement(thing: Thing, trait: str, value: str, *, holds: bool) -> Question:
    text = f"Is this true or false? The {trait} of the {thing.name} is {value}."
    return Question(text, ("true", "false"), 0 if holds else 1)


def _piqa(draw: Random, rows: World) -> Question:
    thing = draw.choice(rows.things)
    other = draw.choice([other for other in rows.things if other.use != thing.use])
    return _question(draw, f"For {thing.use}, what should I get?", thing.name, [other.name])


def _siqa(draw: Random, rows: World) -> Question:
    row, people = draw.choice(rows.deeds), draw.sample(PEOPLE, 2)
    wrong = other_values(draw, [other.motive for other in rows.deeds], row.motive, 2)
    text = f"{people[0]} and {people[1]} {row.deed}. Why do they do that?"
    return _question(draw, text, row.motive, wrong)


def _hellaswag(draw: Random, rows: World) -> Question:
    task, number, person = draw.choice(rows.tasks), draw.randint(1, 3), draw.choice(PEOPLE)
    elsewhere = list(chain.from_iterable(other.steps for other in rows.tasks if other != task))
    same = draw.choice([step for place, step in enumerate(task.steps) if place not in (number - 1, number)])
    wrong = [same, *other_values(draw, elsewhere, task.steps[number], 2)]
    text = f"{person} wants to {task.name}. The step now is to {task.steps[number - 1]}. How does it go on?"
    return _question(draw, text, task.steps[number], wrong)


def _winogrande(draw: Random, rows: World) -> Question:
    thing, trait = draw.choice(rows.things), draw.choice(list(_CLUES))
    value = getattr(thing, trait)
    other = draw.choice([other for other in rows.things if getattr(other, trait) != value])
    names = draw.sample((thing.name, other.name), 2)
    clue = _CLUES[trait].format(value=value)
    return Question(f"Of the {names[0]} and the {names[1]}, only the _ {clue}.", tuple(names), names.index(thing.name))


def _arc_e(draw: Random, rows: World) -> Question:
    thing, trait = draw.choice(rows.things), draw.choice(TRAITS)
    right = getattr(thing, trait)
    wrong = other_values(draw, trait_values(rows, trait), right, 3)
    return _question(draw, _TRAIT_QUESTIONS[trait].format(name=thing.name), right, wrong)


def _arc_c(draw: Random, rows: World) -> Question:
    heaviest, right, others = extreme(draw, rows.things, 4)
    text = f"Which of these is the {'heaviest' if heaviest else 'lightest'}?"
    return _question(draw, text, right.name, [thing.name for thing in others])


def _obqa(draw: Random, rows: World) -> Question:
    row = draw.choice(rows.causes)
    if draw.random() < 0.5:
        wrong = other_values(draw, [other.effect for other in rows.causes], row.effect, 3)
        return _question(draw, f"What can you expect from {row.cause}?", row.effect, wrong)
    wrong = other_values(draw, [other.cause for other in rows.causes], row.cause, 3)
    return _question(draw, f"What is to blame for {row.effect}?", row.cause, wrong)


# Kinds that fall into two are asked equally often, so that neither answer is the better guess.
_KINDS: dict[str, tuple[Kind, ...]] = {
    "toy-boolq": (_true, _false),
    "toy-piqa": (_piqa,),
    "toy-siqa": (_siqa,),
    "toy-hellaswag": (_hellaswag,),
    "toy-winogrande": (_winogrande,),
    "toy-arc-e": (_arc_e,),
    "toy-arc-c": (_arc_c,),
    "toy-obqa": (_obqa,),
}
BENCHMARKS = tuple(_KINDS)
