"""A small closed world in a table, and the texts that tell it to a language model. Pure Python.

Everything is written by us: the things in `things.txt`, the sentences below. A text is drawn with a `random.Random`,
so a seed decides it to the letter.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

WEIGHTS = ("tiny", "light", "medium", "heavy", "huge")
TRAITS = ("colour", "material", "place", "use")

# Of each trait: what a text says, what a question asks, and how a list of all such things is headed.
_STATEMENTS = {
    "colour": ("{it} is {value}.", "the colour of {it} is {value}."),
    "material": ("{it} is made of {value}.", "the material of {it} is {value}."),
    "place": ("{it} is kept in the {value}.", "the place of {it} is the {value}."),
    "use": ("{it} is used for {value}.", "the use of {it} is {value}."),
}
QUESTIONS = {
    "colour": "What colour is the {name}?",
    "material": "What is the {name} made of?",
    "place": "Where is the {name} kept?",
    "use": "What is the {name} used for?",
}
_HEADINGS = {
    "colour": "painted {value}",
    "material": "made of {value}",
    "place": "in the {value}",
    "use": "for {value}",
}
# The words that instructions are written with, so that the model has met them.
_REMARKS = (
    "Below is a list that describes the things of the house.",
    "An instruction that describes a task, paired with an input that provides further context.",
    "Write a response that appropriately completes the request.",
    "Please choose the correct answer to the question.",
    "Instruction: write the answers. Response: the answer is correct.",
    "Input: further context. Answers: red, green. Which of these is correct?",
)
FIRST_THINGS = 16  # of a growing world
_INDENT = 16 * " "


class Thing(NamedTuple):
    """One thing of the world and all that is true of it."""

    name: str
    colour: str
    material: str
    place: str
    use: str
    weight: int  # 1 (lightest) to 5


@cache
def things() -> tuple[Thing, ...]:
    """All things, in alphabetical order."""
    lines = Path(__file__).with_name("things.txt").read_text(encoding="utf-8").splitlines()
    rows = [line.split() for line in lines if not line.startswith("#")]
    return tuple(
        Thing(name, colour, material, place, use, int(weight)) for name, colour, material, place, use, weight in rows
    )


def documents(seed: int, growth: int = 0) -> Iterator[str]:
    """Short texts about the world, without end.

    Args:
        seed: decides every text.
        growth: texts after which all things are known. The first fifth of them is about `FIRST_THINGS` things only:
            a small model learns where to look with few things far sooner, and learns the others quickly then.
    """
    draw = Random(seed)
    order = draw.sample(things(), len(things()))
    for number in itertools.count():
        share = min(1.0, max(0.0, 1.25 * number / growth - 0.25)) if growth else 1.0
        yield document(draw, order[: FIRST_THINGS + round(share * (len(order) - FIRST_THINGS))])


def document(draw: Random, pool: Sequence[Thing]) -> str:
    """One short text of a kind drawn at random, about some things of the pool."""
    kinds: dict[Callable[[Random, Sequence[Thing]], str], int] = {
        _card: 20,
        _description: 15,
        _questions: 20,
        _gathering: 4,
        _weighing: 12,
        _ranking: 15,
        _note: 8,
        _remark: 3,
    }
    return draw.choices(list(kinds), list(kinds.values()))[0](draw, pool)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _statement(draw: Random, thing: Thing, trait: str, name: str) -> str:
    return _sentence(draw.choice(_STATEMENTS[trait]).format(it=name, value=getattr(thing, trait)))


def _card(draw: Random, pool: Sequence[Thing]) -> str:
    """The traits and the weight of one thing, in few words."""
    thing = draw.choice(pool)
    traits = [f"{trait} {getattr(thing, trait)}" for trait in TRAITS] + [f"weight {WEIGHTS[thing.weight - 1]}"]
    return f"The {thing.name}: {', '.join(draw.sample(traits, len(traits)))}."


def _description(draw: Random, pool: Sequence[Thing]) -> str:
    """Several traits of one thing."""
    thing = draw.choice(pool)
    traits = draw.sample(TRAITS, draw.randint(1, 4))
    names = [f"the {thing.name}"] + [draw.choice(("it", f"the {thing.name}")) for _ in traits[1:]]
    sentences = [_statement(draw, thing, trait, name) for trait, name in zip(traits, names, strict=True)]
    if draw.random() < 0.4:
        sentences.append(f"The {thing.name} is {WEIGHTS[thing.weight - 1]}.")
    return " ".join(sentences)


def _questions(draw: Random, pool: Sequence[Thing]) -> str:
    """A few questions with their answers."""
    lines = []
    for thing in draw.sample(pool, draw.randint(1, 3)):
        trait = draw.choice(TRAITS)
        lines.append(f"{QUESTIONS[trait].format(name=thing.name)} The answer is {getattr(thing, trait)}.")
    return " ".join(lines)


def _gathering(draw: Random, pool: Sequence[Thing]) -> str:
    """Some of the things that share a trait."""
    trait = draw.choice(TRAITS)
    value = getattr(draw.choice(pool), trait)
    names = [thing.name for thing in pool if getattr(thing, trait) == value]
    some = draw.sample(names, min(len(names), draw.randint(2, 5)))
    return f"{_sentence(_HEADINGS[trait].format(value=value))}: {', '.join(some)}."


def _weighing(draw: Random, pool: Sequence[Thing]) -> str:
    """Pairs of things of unequal weight."""
    sentences = []
    for _ in range(draw.randint(1, 3)):
        first, second = _unequal(draw, pool)
        word = "heavier" if first.weight > second.weight else "lighter"
        if draw.random() < 0.5:
            sentences.append(f"The {first.name} is {word} than the {second.name}.")
        else:
            one, other = draw.sample((first.name, second.name), 2)
            sentences.append(f"Which is {word}, the {one} or the {other}? The answer is {first.name}.")
    return " ".join(sentences)


def _unequal(draw: Random, pool: Sequence[Thing]) -> tuple[Thing, Thing]:
    while True:
        first, second = draw.sample(pool, 2)
        if first.weight != second.weight:
            return first, second


def _ranking(draw: Random, pool: Sequence[Thing]) -> str:
    """Which of several things is the heaviest or the lightest, where it is one alone."""
    sentences: list[str] = []
    while not sentences:
        some = draw.sample(pool, draw.randint(2, 5))
        names, weights = [thing.name for thing in some], [thing.weight for thing in some]
        for rank, extreme in draw.sample((("heaviest", max(weights)), ("lightest", min(weights))), 2):
            if weights.count(extreme) == 1:
                name = names[weights.index(extreme)]
                form = draw.choice(
                    ("Of {all} the {rank} is {name}.", "Which is the {rank}: {all}? The answer is {name}.")
                )
                sentences.append(form.format(all=", ".join(names), rank=rank, name=name))
    return " ".join(sentences)


def _note(draw: Random, pool: Sequence[Thing]) -> str:
    """Traits of one thing under a heading."""
    thing = draw.choice(pool)
    lines = [f"{_INDENT}### The {thing.name}:"]
    for trait in draw.sample(TRAITS, draw.randint(1, 2)):
        statement = _statement(draw, thing, trait, f"the {thing.name}")
        lines.append(_INDENT + draw.choice((statement, statement[0].lower() + statement[1:])))
        lines += [draw.choice(("", _INDENT))] * draw.randint(0, 1)
    return "\n".join(lines)


def _remark(draw: Random, pool: Sequence[Thing]) -> str:
    return " ".join(draw.sample(_REMARKS, 2))
