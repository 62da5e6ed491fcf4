"""True statements about a scene, from which the small vision-language model learns to see. No questions.

A statement has two parts: what it is about, which nobody could foresee, and what the picture tells.
"""

from collections.abc import Callable, Iterator
from random import Random

from ..scenes import Item, Scene, caption, count_name, item_name, size_name, with_article
from .phrases import STEPS, Kind, Phrase, Statement, cells, fill, led_to, matching, state
from .world import COLOURS, FEW_COLOURS, FEW_SHAPES, GRID, SHAPES, cell

APART = 0.15  # share of the picture's side from which on one thing is left of, or higher than, another
SOUGHT = 0.75  # share of relations that are looked for until some item is in it,
BALANCE = 8  # at most so many times
PLAIN = 0.7  # share of kinds that are named with an article and, where it is open, with "shape" for the shape


def statements(draw: Random, scene: Scene) -> Iterator[Statement]:
    """Statements about one scene, without end, most of them between words that tell nothing."""
    makers, weights = zip(*(GRID_KINDS if scene.grid else FREE_KINDS).values(), strict=True)
    while True:
        if made := draw.choices(makers, weights)[0](draw, scene):
            yield fill(draw, made)


def _row(draw: Random, scene: Scene) -> Statement:
    return _line(draw, scene, "row", 0)


def _column(draw: Random, scene: Scene) -> Statement:
    return _line(draw, scene, "column", 1)


def _line(draw: Random, scene: Scene, name: str, axis: int) -> Statement:
    number = draw.randrange(GRID)
    items = {cell(item): item for item in scene.items}
    line = [(number, place) if axis == 0 else (place, number) for place in range(GRID)]
    names = [item_name(items[each]) if each in items else "nothing" for each in line]
    return state(", ".join(names), _exactly(f"{name} {number + 1}", *line))


def _cell(draw: Random, scene: Scene) -> Statement:
    row, column = (draw.randrange(GRID) for _ in range(2))
    names = [item_name(item) for item in scene.items if cell(item) == (row, column)] or ["nothing"]
    words = draw.choice((f"row {row + 1} column {column + 1}", f"column {column + 1}, row {row + 1}"))
    return state(names[0], _exactly(words, (row, column)))


def _pair(draw: Random, scene: Scene) -> Statement | None:
    """The colour of the only item of its shape, or the shape of the only one of its colour."""
    item = draw.choice(scene.items)
    given, learned = draw.sample(("colour", "shape"), 2)
    if sum(getattr(other, given) == getattr(item, given) for other in scene.items) > 1:
        return None
    named = getattr(item, given)
    words, unit = draw.choice((("", named), (f"{learned} of the ", named if given == "shape" else f"{named} shape")))
    return state(getattr(item, learned), words, _exactly(unit, cell(item)))


def _neighbour(draw: Random, scene: Scene) -> Statement | None:
    """What stands next to an item that can be told from the others."""
    kind = _kind(draw, scene)
    found = cells(scene, kind)
    if len(found) != 1:
        return None
    step = draw.choice(list(STEPS))
    there = led_to((step,), found)
    names = {cell(item): item_name(item) for item in scene.items}
    learned = names.get(next(iter(there)), "nothing") if there else "the edge"
    return state(learned, f"{step} the ", Phrase(str(kind), found, there))


def _count(draw: Random, scene: Scene) -> Statement:
    kind = _kind(draw, scene)
    return state(_number(sum(map(kind.fits, scene.items))), _exactly(kind.plural, *cells(scene, kind)))


def _both(draw: Random, scene: Scene) -> Statement:
    """How many items of one kind are of another as well."""
    one, other = _kind(draw, scene), _kind(draw, scene)
    found, of_other = cells(scene, one), cells(scene, other)
    count = sum(one.fits(item) and other.fits(item) for item in scene.items)
    link = draw.choice((" that is ", " is ", ", ", " "))
    second = Phrase(_name(draw, other, adjective=True), of_other, found & of_other)
    return state(_number(count), _exactly(_name(draw, one), *found), link, second)


def _next_to(draw: Random, scene: Scene) -> Statement:
    return _relation(draw, scene, 1)


def _two_steps(draw: Random, scene: Scene) -> Statement:
    return _relation(draw, scene, 2)


def _relation(draw: Random, scene: Scene, length: int) -> Statement:
    """How many items of a kind stand in a relation to one of another kind; about half of them none."""
    for _ in range(BALANCE if draw.random() < SOUGHT else 1):
        one, other = _kind(draw, scene), _kind(draw, scene)
        steps = tuple(draw.choice(list(STEPS)) for _ in range(length))
        found = matching(scene, one, steps, other)
        if found:
            break
    first, second = (
        _exactly(_name(draw, one), *cells(scene, one)),
        Phrase(_name(draw, other), cells(scene, other), found),
    )
    link = draw.choice((" ", " ", " is ", " that is "))
    return state(_number(len(found)), first, f"{link}{' '.join(steps)} ", second)


def _caption(draw: Random, scene: Scene) -> Statement:
    return state(caption(draw, scene), "picture")


def _ground(draw: Random, scene: Scene) -> Statement:
    return state(scene.background, draw.choice(("ground", "background")))


def _trait(draw: Random, scene: Scene) -> Statement | None:
    """Colour, texture, size or place of an item that can be told from the others."""
    item = draw.choice(scene.items)
    trait = draw.choice(("colour", "texture", "size", "place"))
    name = draw.choice((item.shape, item_name(item, with_texture=False))) if trait != "colour" else item.shape
    same = [each for each in scene.items if name in (each.shape, item_name(each, with_texture=False))]
    if len(same) > 1:
        return None
    values = {"colour": item.colour, "texture": item.texture, "size": size_name(item.size), "place": place(item)}
    return state(values[trait], f"{trait} of the ", _exactly(name, cell(item)))


def _beside(draw: Random, scene: Scene) -> Statement | None:
    """On which side of one item another is."""
    if len(scene.items) < 2:
        return None
    one, other = draw.sample(scene.items, 2)
    across = draw.random() < 0.5
    distance = one.x - other.x if across else one.y - other.y
    if one.shape == other.shape or abs(distance) < APART:
        return None
    words, end = (("left", "right"), " is on the") if across else (("higher", "lower"), " is")
    given = "from the ", _exactly(other.shape, cell(other)), ", the ", _exactly(one.shape, cell(one)), end
    return state(words[distance > 0], *given)


def place(item: Item) -> str:
    """Where in the picture an item is, in words: "top left", "middle", "bottom right"."""
    down, right = cell(item)
    row, column = ("top", "middle", "bottom")[down], ("left", "middle", "right")[right]
    return row if row == column else f"{row} {column}"


def _exactly(words: str, *places: tuple[int, int]) -> Phrase:
    """A phrase that means the same cells whatever stands before it."""
    return Phrase(words, frozenset(places), frozenset(places))


def _number(count: int) -> str:
    return count_name(count) if count else "none"


def _name(draw: Random, kind: Kind, adjective: bool = False) -> str:
    """Words for an item of a kind: "a red shape", "red shape", and "red" where it may be an adjective."""
    if draw.random() < PLAIN:
        return with_article(str(kind))
    return kind.colour if adjective and not kind.shape else str(kind)


def _kind(draw: Random, scene: Scene) -> Kind:
    """Colour and shape of an item of the scene or of none, one of them left open in most cases."""
    if scene.items and draw.random() < 0.7:
        item = draw.choice(scene.items)
        colour, shape = item.colour, item.shape
    else:
        few = all(item.shape in FEW_SHAPES and item.colour in FEW_COLOURS for item in scene.items)
        colour, shape = draw.choice(FEW_COLOURS if few else COLOURS), draw.choice(FEW_SHAPES if few else SHAPES)
    return Kind(*draw.choices([(colour, ""), ("", shape), (colour, shape)], (4, 4, 2))[0])


Maker = Callable[[Random, Scene], Statement | None]
# name -> how such a statement is made, and how often
GRID_KINDS: dict[str, tuple[Maker, int]] = {
    "pair": (_pair, 4),
    "row": (_row, 1),
    "column": (_column, 1),
    "cell": (_cell, 10),
    "neighbour": (_neighbour, 10),
    "count": (_count, 8),
    "two traits": (_both, 14),
    "relation": (_next_to, 34),
    "two relations": (_two_steps, 17),
    "ground": (_ground, 1),
}
FREE_KINDS: dict[str, tuple[Maker, int]] = {
    "pair": (_pair, 15),
    "caption": (_caption, 4),
    "ground": (_ground, 4),
    "trait": (_trait, 45),
    "side": (_beside, 20),
    "count": (_count, 7),
    "two traits": (_both, 5),
}
