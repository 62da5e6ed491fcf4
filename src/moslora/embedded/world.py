"""A small closed world in a table, and the texts that tell it to a language model. Pure Python.

Everything is written by us: the things in `things.txt`, the sentences below. A text is drawn with a `random.Random`,
so a seed decides it to the letter.
"""

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

WEIGHTS = ("tiny", "light", "medium", "heavy", "huge")
TRAITS = ("colour", "material", "place", "use")

# Of each trait: what a text says, what a question asks, and how a list of all such things is headed.
_STATEMENTS = {
    "colour": ("{it} is {value}.", "the colour of {it} is {value}.", "{it} is painted {value}."),
    "material": ("{it} is made of {value}.", "the material of {it} is {value}.", "{it} consists of {value}."),
    "place": ("{it} is kept in the {value}.", "you find {it} in the {value}.", "in the {value} there is {it}."),
    "use": ("{it} is used for {value}.", "for {value} you need {it}.", "{it} helps with {value}."),
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
    "The format of an answer is a number.",
    "Instruction: write the answer. Response: the answer is correct.",
    "Input: further context. Answer format: a number.",
    "Answers: answer1/answer2/answer3/answer4.",
)
_LABELS = ("Row", "Line", "Box", "Shelf", "Answer")
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


def documents(seed: int) -> Iterator[str]:
    """Short texts about the world, without end."""
    draw = Random(seed)
    while True:
        yield document(draw)


def document(draw: Random) -> str:
    """One short text of a kind drawn at random."""
    kinds: dict[Callable[[Random], str], int] = {
        _description: 30,
        _questions: 20,
        _gathering: 8,
        _weighing: 15,
        _numbered_list: 15,
        _sorting: 15,
        _note: 8,
        _remark: 2,
    }
    return draw.choices(list(kinds), list(kinds.values()))[0](draw)


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:]


def _statement(draw: Random, thing: Thing, trait: str, name: str) -> str:
    return _sentence(draw.choice(_STATEMENTS[trait]).format(it=name, value=getattr(thing, trait)))


def _description(draw: Random) -> str:
    """Several traits of one thing."""
    thing = draw.choice(things())
    traits = draw.sample(TRAITS, draw.randint(1, 4))
    names = [f"the {thing.name}"] + [draw.choice(("it", f"the {thing.name}")) for _ in traits[1:]]
    sentences = [_statement(draw, thing, trait, name) for trait, name in zip(traits, names, strict=True)]
    if draw.random() < 0.4:
        sentences.append(f"The {thing.name} is {WEIGHTS[thing.weight - 1]}.")
    return " ".join(sentences)


def _questions(draw: Random) -> str:
    """A few questions with their answers."""
    lines = []
    for thing in draw.sample(things(), draw.randint(1, 3)):
        trait = draw.choice(TRAITS)
        lines.append(f"{QUESTIONS[trait].format(name=thing.name)} The answer is {getattr(thing, trait)}.")
    return " ".join(lines)


def _gathering(draw: Random) -> str:
    """Some of the things that share a trait."""
    trait = draw.choice(TRAITS)
    value = getattr(draw.choice(things()), trait)
    names = [thing.name for thing in things() if getattr(thing, trait) == value]
    some = draw.sample(names, min(len(names), draw.randint(2, 5)))
    return f"{_sentence(_HEADINGS[trait].format(value=value))}: {', '.join(some)}."


def _weighing(draw: Random) -> str:
    """Pairs of things of unequal weight."""
    sentences = []
    for _ in range(draw.randint(1, 3)):
        first, second = _unequal(draw)
        word = "heavier" if first.weight > second.weight else "lighter"
        names = (first.name, second.name)
        if draw.random() < 0.5:
            sentences.append(f"The {names[0]} is {word} than the {names[1]}.")
        else:
            one, other = draw.sample(names, 2)
            sentences.append(f"Which is {word}, the {one} or the {other}? The answer is {names[0]}.")
    return " ".join(sentences)


def _unequal(draw: Random) -> tuple[Thing, Thing]:
    while True:
        first, second = draw.sample(things(), 2)
        if first.weight != second.weight:
            return first, second


def _numbered_list(draw: Random) -> str:
    """Numbered entries, then some of them looked up by number or by entry."""
    word = draw.choice(_LABELS)
    trait = draw.choice((*TRAITS, "name"))
    entries = draw.sample(sorted({str(getattr(thing, trait)) for thing in things()}), draw.randint(2, 5))
    rows = list(enumerate(entries, 1))
    text = [_numbered(word, entries)]
    for number, entry in draw.sample(rows, draw.randint(1, len(rows))):
        if draw.random() < 0.3:
            text.append(f"{word}{number} holds {entry}.")
        else:
            text.append(f"Find {entry} in {word.lower()}{number}.")
    return " ".join(text)


def _numbered(word: str, entries: list[str]) -> str:
    return " ".join(f"{word}{number}: {entry}" for number, entry in enumerate(entries, 1)) + "."


def _sorting(draw: Random) -> str:
    """Numbered values of one trait, and things that are put where they belong."""
    word = draw.choice(_LABELS)
    trait = draw.choice(TRAITS)
    values = draw.sample(sorted({getattr(thing, trait) for thing in things()}), draw.randint(2, 5))
    fitting = [thing for thing in things() if getattr(thing, trait) in values]
    text = [_numbered(word, values)]
    for thing in draw.sample(fitting, draw.randint(1, 4)):
        text.append(f"Put the {thing.name} in {word.lower()}{values.index(getattr(thing, trait)) + 1}.")
    return " ".join(text)


def _note(draw: Random) -> str:
    """Traits of one thing under headings."""
    thing = draw.choice(things())
    lines = [f"{_INDENT}### The {thing.name}:"]
    for trait in draw.sample(TRAITS, draw.randint(1, 2)):
        lines.append(_INDENT + _statement(draw, thing, trait, f"the {thing.name}"))
        lines += [draw.choice(("", _INDENT))] * draw.randint(0, 1)
    return "\n".join(lines)


def _remark(draw: Random) -> str:
    return " ".join(draw.sample(_REMARKS, 2))
