"""True statements about a scene, from which the small vision-language model learns to see. No questions.

A statement has two parts: what it is about, which nobody could foresee, and what the picture tells.
"""

from collections.abc import Callable, Iterator
from random import Random
from typing import NamedTuple

from ..scenes import Item, Scene, caption, count_name, item_name, size_name, with_article
from .world import COLOURS, FEW_COLOURS, FEW_SHAPES, GRID, SHAPES

STEPS = {"above": (-1, 0), "below": (1, 0), "left of": (0, -1), "right of": (0, 1)}  # words -> rows, columns
APART = 0.15  # share of the picture's side from which on one thing is left of, or higher than, another
SOUGHT = 0.75  # share of relations that are looked for until some item is in it,
BALANCE = 8  # at most so many times

Cell = tuple[int, int]


class Statement(NamedTuple):
    """A text about a picture: `given` and then `learned`."""

    given: str
    learned: str


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


def statements(draw: Random, scene: Scene, easy: bool = False) -> Iterator[Statement]:
    """Statements about one scene, without end; the easy ones tell of single items and what stands where."""
    kinds = (EASY_GRID_KINDS if easy else GRID_KINDS) if scene.grid else FREE_KINDS
    makers, weights = zip(*kinds.values(), strict=True)
    while True:
        if made := draw.choices(makers, weights)[0](draw, scene):
            yield made


def matching(scene: Scene, kind: Kind, steps: tuple[str, ...] = (), other: Kind | None = None) -> set[Cell]:
    """Cells of the items of a kind that stand where the steps lead, seen from an item of the other kind.

    Args:
        scene: a grid.
        kind: of the items that are looked for.
        steps: of `STEPS`, as they are said: `("left of", "above")` is left of what is above.
        other: the kind from which the last step is made.
    """
    found = {scene.cell(item) for item in scene.items if kind.fits(item)}
    if other is None:
        return found
    places = {scene.cell(item) for item in scene.items if other.fits(item)}
    for step in reversed(steps):
        down, right = STEPS[step]
        places = {(row + down, column + right) for row, column in places}
        places = {place for place in places if all(0 <= part < scene.grid for part in place)}
    return found & places


def _row(draw: Random, scene: Scene) -> Statement:
    return _line(draw, scene, "row", 0)


def _column(draw: Random, scene: Scene) -> Statement:
    return _line(draw, scene, "column", 1)


def _line(draw: Random, scene: Scene, name: str, axis: int) -> Statement:
    number = draw.randrange(GRID)
    items = {scene.cell(item): item for item in scene.items}
    cells = [(number, place) if axis == 0 else (place, number) for place in range(GRID)]
    names = [item_name(items[cell]) if cell in items else "nothing" for cell in cells]
    return Statement(f"{name} {number + 1}:", f" {', '.join(names)}")


def _cell(draw: Random, scene: Scene) -> Statement:
    cell = draw.randrange(GRID), draw.randrange(GRID)
    names = [item_name(item) for item in scene.items if scene.cell(item) == cell] or ["nothing"]
    return Statement(f"row {cell[0] + 1} column {cell[1] + 1}:", f" {names[0]}")


def _pair(draw: Random, scene: Scene) -> Statement | None:
    """The colour of the only item of its shape, or the shape of the only one of its colour."""
    item = draw.choice(scene.items)
    given, learned = draw.sample(("colour", "shape"), 2)
    if sum(getattr(other, given) == getattr(item, given) for other in scene.items) > 1:
        return None
    return Statement(f"{getattr(item, given)}:", f" {getattr(item, learned)}")


def _neighbour(draw: Random, scene: Scene) -> Statement | None:
    """What stands next to an item that can be told from the others."""
    kind = _kind(draw, scene)
    found = matching(scene, kind)
    if len(found) != 1:
        return None
    step = draw.choice(list(STEPS))
    (row, column), (down, right) = found.pop(), STEPS[step]
    cell = row + down, column + right
    names = {scene.cell(item): item_name(item) for item in scene.items}
    inside = all(0 <= part < scene.grid for part in cell)
    return Statement(f"{step} the {kind}:", f" {names.get(cell, 'nothing' if inside else 'the edge')}")


def _count(draw: Random, scene: Scene) -> Statement:
    kind = _kind(draw, scene)
    return Statement(f"{kind.plural}:", f" {_number(sum(map(kind.fits, scene.items)))}")


def _both(draw: Random, scene: Scene) -> Statement:
    """How many items of one kind are of another as well."""
    one, other = (Kind(*parts) for parts in draw.sample([_kind_parts(draw, scene) for _ in range(2)], 2))
    count = sum(one.fits(item) and other.fits(item) for item in scene.items)
    adjective = other.colour if other.colour and not other.shape else with_article(str(other))
    return Statement(f"{with_article(str(one))} that is {adjective}:", f" {_number(count)}")


def _next_to(draw: Random, scene: Scene) -> Statement:
    return _relation(draw, scene, 1)


def _two_steps(draw: Random, scene: Scene) -> Statement:
    return _relation(draw, scene, 2)


def _relation(draw: Random, scene: Scene, length: int) -> Statement:
    """How many items of a kind stand in a relation to one of another kind; about half of them none."""
    for _ in range(BALANCE if draw.random() < SOUGHT else 1):
        one, other = _kind(draw, scene), _kind(draw, scene)
        steps = tuple(draw.choice(list(STEPS)) for _ in range(length))
        count = len(matching(scene, one, steps, other))
        if count:
            break
    names = [with_article(str(kind)) for kind in (one, other)]
    return Statement(f"{names[0]} {' '.join(steps)} {names[1]}:", f" {_number(count)}")


def _caption(draw: Random, scene: Scene) -> Statement:
    return Statement("picture:", f" {caption(draw, scene)}")


def _ground(draw: Random, scene: Scene) -> Statement:
    return Statement("ground:", f" {scene.background}")


def _trait(draw: Random, scene: Scene) -> Statement | None:
    """Colour, shape, texture, size or place of an item that can be told from the others."""
    item = draw.choice(scene.items)
    trait = draw.choice(("colour", "texture", "size", "place"))
    name = item.shape if trait == "colour" else item_name(item, with_texture=False)
    same = [each for each in scene.items if name in (each.shape, item_name(each, with_texture=False))]
    if len(same) > 1:
        return None
    values = {"colour": item.colour, "texture": item.texture, "size": size_name(item.size), "place": place(item)}
    return Statement(f"{trait} of the {name}:", f" {values[trait]}")


def _beside(draw: Random, scene: Scene) -> Statement | None:
    """On which side of one item another is."""
    if len(scene.items) < 2:
        return None
    one, other = draw.sample(scene.items, 2)
    if one.shape == other.shape:
        return None
    if draw.random() < 0.5:
        if abs(one.x - other.x) < APART:
            return None
        return Statement(f"from the {other.shape}, the {one.shape} is on the", f" {_side(one.x < other.x)}")
    if abs(one.y - other.y) < APART:
        return None
    return Statement(f"from the {other.shape}, the {one.shape} is", f" {'higher' if one.y < other.y else 'lower'}")


def place(item: Item) -> str:
    """Where in the picture an item is, in words: "top left", "middle", "bottom right"."""
    row, column = (("top", "middle", "bottom")[int(3 * item.y)], ("left", "middle", "right")[int(3 * item.x)])
    return row if row == column else f"{row} {column}"


def _side(left: bool) -> str:
    return "left" if left else "right"


def _number(count: int) -> str:
    return count_name(count) if count else "none"


def _kind(draw: Random, scene: Scene) -> Kind:
    return Kind(*_kind_parts(draw, scene))


def _kind_parts(draw: Random, scene: Scene) -> tuple[str, str]:
    """Colour and shape of an item of the scene or of none, one of them left open in most cases."""
    if scene.items and draw.random() < 0.7:
        item = draw.choice(scene.items)
        colour, shape = item.colour, item.shape
    else:
        few = all(item.shape in FEW_SHAPES and item.colour in FEW_COLOURS for item in scene.items)
        colour, shape = draw.choice(FEW_COLOURS if few else COLOURS), draw.choice(FEW_SHAPES if few else SHAPES)
    return draw.choices([(colour, ""), ("", shape), (colour, shape)], (4, 4, 2))[0]


Maker = Callable[[Random, Scene], Statement | None]
# name -> how such a statement is made, and how often
GRID_KINDS: dict[str, tuple[Maker, int]] = {
    "pair": (_pair, 4),
    "row": (_row, 2),
    "column": (_column, 2),
    "cell": (_cell, 12),
    "neighbour": (_neighbour, 16),
    "count": (_count, 8),
    "two traits": (_both, 6),
    "relation": (_next_to, 36),
    "two relations": (_two_steps, 14),
    "ground": (_ground, 1),
}
EASY_GRID_KINDS: dict[str, tuple[Maker, int]] = {
    "pair": (_pair, 40),
    "caption": (_caption, 6),
    "cell": (_cell, 40),
    "neighbour": (_neighbour, 14),
}
FREE_KINDS: dict[str, tuple[Maker, int]] = {
    "pair": (_pair, 10),
    "caption": (_caption, 10),
    "ground": (_ground, 6),
    "trait": (_trait, 40),
    "side": (_beside, 18),
    "count": (_count, 15),
    "two traits": (_both, 5),
}
