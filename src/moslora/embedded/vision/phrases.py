"""What words mean in a scene: kinds of items, steps from cell to cell, statements whose phrases mean cells."""

from random import Random
from typing import NamedTuple

from ..scenes import Item, Scene
from .words import FILLERS
from .world import GRID, Cell, cell

STEPS = {"above": (-1, 0), "below": (1, 0), "left of": (0, -1), "right of": (0, 1)}  # words -> rows, columns
FILLED = 0.6  # share of the statements with other words around them,
BEFORE, BEHIND = 3, 14  # at most so many
BREAKS = 0.2  # share of them that stand on a new line


class Kind(NamedTuple):
    """Items of one colour, of one shape, or both; "" is any."""

    colour: str
    shape: str

    def fits(self, item: Item) -> bool:
        """Whether an item is of this kind."""
        return self.colour in ("", item.colour) and self.shape in ("", item.shape)

    @property
    def plural(self) -> str:
        """The words for several of them."""
        return f"{self}{'es' if self.shape == 'cross' else 's'}"

    def __str__(self) -> str:
        return " ".join(filter(None, (self.colour, self.shape or "shape")))


class Phrase(NamedTuple):
    """Words of a statement and the cells of the picture that they mean."""

    words: str
    own: frozenset[Cell]
    """Of what the words name, whatever stands before them."""
    so_far: frozenset[Cell]
    """Of what the statement is about, up to the end of these words."""


class Statement(NamedTuple):
    """A text about a picture: `given` and then `learned`."""

    given: str
    learned: str
    phrases: tuple[tuple[int, Phrase], ...] = ()
    """Each behind the length of `given` up to its end, in characters."""


def state(learned: str, *given: str | Phrase) -> Statement:
    """A statement put together from phrases and the words between them."""
    text, phrases = "", []
    for part in given:
        text += part if isinstance(part, str) else part.words
        if isinstance(part, Phrase):
            phrases.append((len(text), part))
    return Statement(f"{text}:", f" {learned}", tuple(phrases))


def fill(draw: Random, statement: Statement) -> Statement:
    """The statement between words that tell nothing of it, in most cases, so that it is found inside an instruction."""
    if draw.random() > FILLED:
        return statement
    before = _fillers(draw, BEFORE).lstrip()
    before = f"{before} " if before else ""
    behind = _fillers(draw, BEHIND)
    phrases = tuple((len(before) + end, phrase) for end, phrase in statement.phrases)
    return Statement(f"{before}{statement.given.removesuffix(':')}{behind}:", statement.learned, phrases)


def _fillers(draw: Random, most: int) -> str:
    count = draw.randint(0, most)
    return "".join(draw.choices("\n ", (BREAKS, 1 - BREAKS))[0] + draw.choice(FILLERS) for _ in range(count))


def cells(scene: Scene, kind: Kind) -> frozenset[Cell]:
    """Where the items of a kind are."""
    return frozenset(cell(item) for item in scene.items if kind.fits(item))


def led_to(steps: tuple[str, ...], places: frozenset[Cell]) -> frozenset[Cell]:
    """Where steps lead from some places, as they are said: `("left of", "above")` is left of what is above.

    Each step has to stay within the grid.
    """
    for step in reversed(steps):
        down, right = STEPS[step]
        moved = {(row + down, column + right) for row, column in places}
        places = frozenset(place for place in moved if all(0 <= part < GRID for part in place))
    return places


def matching(scene: Scene, kind: Kind, steps: tuple[str, ...], other: Kind) -> frozenset[Cell]:
    """Cells of the items of a kind that stand where the steps lead, seen from an item of the other kind."""
    return cells(scene, kind) & led_to(steps, cells(scene, other))
