"""Texts that tell the world to a language model: statements of its facts, and nothing else. Pure Python.

A text is drawn with a `random.Random`, so a seed decides it to the letter.
"""

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import NamedTuple, TypeVar

from .world import TRAITS, WEIGHTS, Thing, World

_STATEMENTS = {
    "colour": ("{it} is {value}.", "the colour of {it} is {value}."),
    "material": ("{it} is made of {value}.", "the material of {it} is {value}."),
    "place": ("{it} is kept in the {value}.", "the place of {it} is the {value}."),
    "use": ("{it} is used for {value}.", "the use of {it} is {value}."),
}
HEADINGS = {
    "colour": "painted {value}",
    "material": "made of {value}",
    "place": "in the {value}",
    "use": "for {value}",
}
_CAUSES = (
    "{cause} brings {effect}.",
    "{cause} leads to {effect}.",
    "{effect}: the work of {cause}.",
    "where there is {cause}, {effect} is next.",
    "cause {cause}, effect {effect}.",
    "effect {effect}, cause {cause}.",
)
_DEEDS = (
    "people {deed} out of {motive}.",
    "{motive} makes people {deed}.",
    "those who {deed} act from {motive}.",
    "to {deed} is a sign of {motive}.",
    "deed {deed}, motive {motive}.",
)
# The words that instructions and questions are written with, so that the model has met them.
_REMARKS = (
    "Below is a list that describes the things of the house.",
    "An instruction that describes a task, paired with an input that provides further context.",
    "Write a response that appropriately completes the request.",
    "Please read the text below. It has an answer, an option, a solution and an ending.",
    "Instruction: write a true text. Response: false starts are allowed.",
    "Input: further context. Format: one/two. Which of these do you mean?",
    "Answer. Option. Solution. Ending. Which one is correct?",
    "The correct answer is not an option/solution/ending/answer.",
    "Is this true or false? What should I do at this step?",
    "Ada and Ben want to know which of these you would need.",
    "Cora wants to do what Dan does. Eva and Finn find out why.",
    "Greta, Hugo and Iris fall into the sea. Who sinks first and who sinks last?",
    "Jan, Karla and Leo expect what was made from a plan. How does it go on now?",
    "Who is to blame for that? Where can you get the heaviest and the lightest?",
    "They do have what the _ would need.",
)
INDENT = 16 * " "


class Exercise(NamedTuple):
    """A text in two parts. Nobody could foresee the first, so only the second is learned."""

    given: str
    learned: str


Text = TypeVar("Text")


def one_of(kinds: Mapping[Callable[[Random, World], Text], int], draw: Random, rows: World) -> Text:
    """A text of a kind drawn at random; how often a kind comes is in proportion to its number."""
    return draw.choices(list(kinds), list(kinds.values()))[0](draw, rows)


def statement(draw: Random, rows: World) -> str:
    """One short text of a kind drawn at random, about some of the rows."""
    kinds: dict[Callable[[Random, World], str], int] = {
        _card: 20,
        _description: 20,
        _gathering: 6,
        _weighing: 12,
        _note: 6,
        _cause: 14,
        _deed: 14,
        _task: 20,
        _remark: 6,
    }
    return one_of(kinds, draw, rows)


def sentence(text: str) -> str:
    """The text with a capital letter."""
    return text[0].upper() + text[1:]


def fact(draw: Random, thing: Thing, trait: str, name: str) -> str:
    """A statement of one trait of a thing under a name."""
    return sentence(draw.choice(_STATEMENTS[trait]).format(it=name, value=getattr(thing, trait)))


def _card(draw: Random, rows: World) -> str:
    """The traits and the weight of one thing, in few words."""
    thing = draw.choice(rows.things)
    traits = [f"{trait} {getattr(thing, trait)}" for trait in TRAITS] + [f"weight {WEIGHTS[thing.weight - 1]}"]
    return f"The {thing.name}: {', '.join(draw.sample(traits, len(traits)))}."


def _description(draw: Random, rows: World) -> str:
    """Several traits of one thing."""
    thing = draw.choice(rows.things)
    traits = draw.sample(TRAITS, draw.randint(1, 4))
    names = [f"the {thing.name}"] + [draw.choice(("it", f"the {thing.name}")) for _ in traits[1:]]
    sentences = [fact(draw, thing, trait, name) for trait, name in zip(traits, names, strict=True)]
    if draw.random() < 0.4:
        sentences.append(f"The {thing.name} is {WEIGHTS[thing.weight - 1]}.")
    return " ".join(sentences)


def _gathering(draw: Random, rows: World) -> str:
    """Some of the things that share a trait."""
    trait = draw.choice(TRAITS)
    value = getattr(draw.choice(rows.things), trait)
    names = [thing.name for thing in rows.things if getattr(thing, trait) == value]
    some = draw.sample(names, min(len(names), draw.randint(2, 5)))
    return f"{sentence(HEADINGS[trait].format(value=value))}: {', '.join(some)}."


def _weighing(draw: Random, rows: World) -> str:
    """Pairs of things of unequal weight."""
    sentences = []
    for _ in range(draw.randint(1, 3)):
        lighter, heavier = unequal(draw, rows)
        pair = (heavier, "heavier", lighter) if draw.random() < 0.5 else (lighter, "lighter", heavier)
        sentences.append(f"The {pair[0].name} is {pair[1]} than the {pair[2].name}.")
    return " ".join(sentences)


def unequal(draw: Random, rows: World) -> tuple[Thing, Thing]:
    """Two things of unequal weight, the lighter one first."""
    while True:
        lighter, heavier = sorted(draw.sample(rows.things, 2), key=lambda thing: thing.weight)
        if lighter.weight < heavier.weight:
            return lighter, heavier


def extreme(draw: Random, things: Sequence[Thing], count: int) -> tuple[bool, Thing, list[Thing]]:
    """Whether the heaviest is meant or the lightest, that thing, and others that are not as heavy or as light."""
    while True:
        heaviest = draw.random() < 0.5
        ranked = sorted(draw.sample(things, count), key=lambda thing: thing.weight, reverse=heaviest)
        if ranked[0].weight != ranked[1].weight:
            return heaviest, ranked[0], ranked[1:]


def _note(draw: Random, rows: World) -> str:
    """Traits of one thing under a heading."""
    thing = draw.choice(rows.things)
    lines = [f"{INDENT}### The {thing.name}:"]
    for trait in draw.sample(TRAITS, draw.randint(1, 2)):
        lines.append(INDENT + fact(draw, thing, trait, f"the {thing.name}"))
        lines += [draw.choice(("", INDENT))] * draw.randint(0, 1)
    return "\n".join(lines)


def _cause(draw: Random, rows: World) -> str:
    some = draw.sample(rows.causes, draw.randint(1, 2))
    return " ".join(sentence(draw.choice(_CAUSES).format(**row._asdict())) for row in some)


def _deed(draw: Random, rows: World) -> str:
    some = draw.sample(rows.deeds, draw.randint(1, 2))
    return " ".join(sentence(draw.choice(_DEEDS).format(**row._asdict())) for row in some)


def _task(draw: Random, rows: World) -> str:
    """The steps of a task, from its beginning or from one of them on."""
    task = draw.choice(rows.tasks)
    start = draw.choice((0, 0, 1, 2))
    steps = f", {draw.choice(('then', 'next'))} ".join(task.steps[start:])
    return f"To {task.name}, {'' if start else 'first '}{steps}."


def _remark(draw: Random, rows: World) -> str:
    return " ".join(draw.sample(_REMARKS, 2))
