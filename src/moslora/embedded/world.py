"""A small closed world in four tables. Pure Python.

Everything is written by us: the rows in `tables/`, and the sentences made of them in `texts.py`, `skills.py` and
`questions.py`.

The rows of each table fall into two shares. What the base model is taught to do with facts (choose, compare, judge)
it is taught with the rows for practice. Questions are asked about the other rows alone.
"""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, NamedTuple, TypeVar

WEIGHTS = ("tiny", "light", "medium", "heavy", "huge")
TRAITS = ("colour", "material", "place", "use")
PRACTICE_SHARE = 1 / 3


class Thing(NamedTuple):
    """One thing of the world and all that is true of it."""

    name: str
    colour: str
    material: str
    place: str
    use: str
    weight: int  # 1 (lightest) to 5


class Cause(NamedTuple):
    """What brings what."""

    cause: str
    effect: str


class Deed(NamedTuple):
    """What people do, and why."""

    deed: str
    motive: str


class Task(NamedTuple):
    """Something to do, and its steps in order."""

    name: str
    steps: tuple[str, ...]


class World(NamedTuple):
    """All rows, or some of each table."""

    things: tuple[Thing, ...]
    causes: tuple[Cause, ...]
    deeds: tuple[Deed, ...]
    tasks: tuple[Task, ...]


class Shares(NamedTuple):
    """The world in two parts that share no row."""

    practice: World
    asked: World


Row = TypeVar("Row")


@cache
def world() -> World:
    """Everything, in the order of the tables."""
    things = [line.split() for line in _lines("things")]
    tasks = [_cells(line) for line in _lines("tasks")]
    return World(
        tuple(
            Thing(name, colour, material, place, use, int(weight))
            for name, colour, material, place, use, weight in things
        ),
        tuple(Cause(*_cells(line)) for line in _lines("causes")),
        tuple(Deed(*_cells(line)) for line in _lines("deeds")),
        tuple(Task(name, tuple(steps)) for name, *steps in tasks),
    )


@cache
def shares() -> Shares:
    """The rows for practice and those that questions ask about; the same in every run."""
    tables = [split(table, PRACTICE_SHARE, Random("shares")) for table in world()]
    return Shares(*map(of_tables, zip(*tables, strict=True)))


def of_tables(tables: Iterable[Any]) -> World:
    """A world of its four tables."""
    return World(*tables)


def trait_values(rows: World, trait: str) -> list[str]:
    """The value of one trait of each thing, as often as it occurs."""
    return [getattr(thing, trait) for thing in rows.things]


def other_values(draw: Random, values: Sequence[str], right: str, count: int) -> list[str]:
    """Up to `count` different values that are not the right one, as frequent as they are."""
    found: list[str] = []
    while len(found) < count:
        value = draw.choice(values)
        if value != right and value not in found:
            found.append(value)
    return found


def split(rows: Sequence[Row], share: float, draw: Random) -> tuple[tuple[Row, ...], tuple[Row, ...]]:
    """`share` of the rows, drawn at random, and the others."""
    order = draw.sample(rows, len(rows))
    first = round(share * len(rows))
    return tuple(order[:first]), tuple(order[first:])


def shuffled(rows: World, draw: Random) -> World:
    """The same rows, each table in random order."""
    return of_tables(tuple(draw.sample(table, len(table))) for table in rows)


def first(rows: World, share: float) -> World:
    """The first `share` of each table, at least 8 rows."""
    return of_tables(table[: max(8, round(share * len(table)))] for table in rows)


def _lines(table: str) -> list[str]:
    text = (Path(__file__).parent / "tables" / f"{table}.txt").read_text(encoding="utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.split("|")]
