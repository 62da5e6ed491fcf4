"""What a scene is made of: items, the scene, and the tables of names."""

import dataclasses
from types import MappingProxyType

Colour = tuple[int, int, int]  # red, green, blue, each 0 to 255

COLOURS = MappingProxyType(
    {
        "red": (220, 30, 35),
        "green": (30, 160, 50),
        "blue": (35, 70, 220),
        "yellow": (250, 215, 40),
        "orange": (250, 130, 20),
        "purple": (130, 40, 170),
        "pink": (250, 140, 190),
        "brown": (115, 70, 35),
        "cyan": (50, 205, 220),
        "grey": (130, 130, 135),
        "white": (245, 245, 245),
        "black": (20, 20, 25),
    }
)
TEXTURES = ("plain", "striped", "dotted", "checked")
SIZES = MappingProxyType({"small": 0.2, "medium": 0.32, "large": 0.48})  # width of an item; 1 is that of the picture


@dataclasses.dataclass(frozen=True, kw_only=True)
class Item:
    """One object of a scene. Lengths are shares of the picture's side."""

    shape: str
    """A name of `SHAPES`."""
    colour: str
    """A name of `COLOURS`."""
    x: float = 0.5
    """Centre, 0 at the left edge and 1 at the right one."""
    y: float = 0.5
    """Centre, 0 at the upper edge and 1 at the lower one."""
    size: float = SIZES["medium"]
    """Width of the square that the shape fills."""
    texture: str = "plain"
    """A name of `TEXTURES`; all but `plain` add white, or black on a light colour."""
    tint: Colour | None = None
    """The exact colour, near that of the name; None for the one in `COLOURS`."""

    @property
    def rgb(self) -> Colour:
        """The colour it is painted in."""
        return self.tint or COLOURS[self.colour]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
    """Items on a background. Later items are painted over earlier ones."""

    items: tuple[Item, ...]
    background: str = "white"
    """A name of `BACKGROUNDS`."""
    grid: int = 0
    """Rows and columns of the cells in which the items stand, or 0 if they stand freely."""
    seed: int = 0
    """Decides the details of the background, such as single blades of grass."""


def cell_centre(row: int, column: int, grid: int) -> tuple[float, float]:
    """The x and y of the middle of a cell, from its row and column, both from 0."""
    return (column + 0.5) / grid, (row + 0.5) / grid


def cell_of(item: Item, grid: int) -> tuple[int, int]:
    """Row and column, both from 0, of the cell in which the middle of an item lies."""
    return int(item.y * grid), int(item.x * grid)


def size_name(size: float) -> str:
    """The name of `SIZES` that is nearest to a width."""
    return min(SIZES, key=lambda name: abs(SIZES[name] - size))
