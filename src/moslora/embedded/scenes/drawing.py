"""Items and scenes drawn at random."""

import dataclasses
from collections.abc import Sequence
from random import Random

from .backgrounds import BACKGROUNDS
from .model import COLOURS, SIZES, TEXTURES, Colour, Item, Scene, cell_centre
from .shapes import SHAPES

TINT = 12  # a colour differs from that of its name by at most this much in red, green and blue
TRIES = 30  # at finding a free place


def draw_item(
    draw: Random,
    shapes: Sequence[str] = tuple(SHAPES),
    colours: Sequence[str] = tuple(COLOURS),
    textures: Sequence[str] = TEXTURES,
    sizes: Sequence[str] = tuple(SIZES),
) -> Item:
    """One item of these kinds, in the middle of the picture.

    Its size is up to a tenth larger or smaller than that of the name.
    """
    colour = draw.choice(colours)
    return Item(
        shape=draw.choice(shapes),
        colour=colour,
        size=SIZES[draw.choice(sizes)] * draw.uniform(0.9, 1.1),
        texture=draw.choice(textures),
        tint=_near(draw, COLOURS[colour]),
    )


def draw_scene(
    draw: Random,
    count: int = 1,
    grid: int = 0,
    backgrounds: Sequence[str] = tuple(BACKGROUNDS),
    shapes: Sequence[str] = tuple(SHAPES),
    colours: Sequence[str] = tuple(COLOURS),
    textures: Sequence[str] = TEXTURES,
    sizes: Sequence[str] = tuple(SIZES),
) -> Scene:
    """A scene of `count` items that do not overlap; no item has the colour of a plain background.

    Args:
        draw: decides everything.
        count: of items; fewer are drawn where there is no room left.
        grid: rows and columns of cells, one item a cell at most; 0 places the items freely.
        backgrounds, shapes, colours, textures, sizes: names to choose from. In a grid, sizes are shares of a cell.
    """
    background = draw.choice(backgrounds)
    seen = [colour for colour in colours if colour != background]
    items: list[Item] = []
    cells = draw.sample(range(grid * grid), min(count, grid * grid)) if grid else []
    for number in range(len(cells) if grid else count):
        item = draw_item(draw, shapes, seen, textures, sizes)
        if grid:
            x, y = cell_centre(*divmod(cells[number], grid), grid)
            items.append(dataclasses.replace(item, x=x, y=y, size=min(0.92, 1.9 * item.size) / grid))
        elif place := free_place(draw, item.size, items):
            items.append(dataclasses.replace(item, x=place[0], y=place[1]))
    return Scene(items=tuple(items), background=background, grid=grid, seed=draw.randrange(2**16))


def free_place(draw: Random, size: float, items: Sequence[Item]) -> tuple[float, float] | None:
    """The centre (x, y) of a place inside the picture where an item of this size touches no other, or None."""
    for _ in range(TRIES):
        x, y = (draw.uniform(size / 2, 1 - size / 2) for _ in range(2))
        if all(max(abs(x - item.x), abs(y - item.y)) > (size + item.size) / 2 for item in items):
            return x, y
    return None


def _near(draw: Random, colour: Colour) -> Colour:
    red, green, blue = (min(255, max(0, part + draw.randint(-TINT, TINT))) for part in colour)
    return red, green, blue
