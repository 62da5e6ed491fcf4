"""What a creature is made of, and one drawn at random."""

import dataclasses
from random import Random

from ..scenes import COLOURS

BODIES = ("round", "tall", "square", "chubby")
PATTERNS = ("plain", "striped", "dotted")
TOPS = ("nothing", "hat", "antennae", "horns", "ears")
SKINS = tuple(colour for colour in COLOURS if colour != "black")  # eyes and mouth would be lost on black


@dataclasses.dataclass(frozen=True, kw_only=True)
class Creature:
    """A fellow with a body, some eyes and perhaps something on its head."""

    body: str
    """A name of `BODIES`."""
    colour: str
    """Of the body; a name of `SKINS`."""
    pattern: str
    """A name of `PATTERNS`."""
    accent: str
    """Colour of stripes or dots; a name of `COLOURS`. A plain creature has it too, on its feet."""
    eyes: int
    """1, 2 or 3."""
    top: str
    """A name of `TOPS`."""
    top_colour: str
    """A name of `COLOURS`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pose:
    """Where a creature stands in a picture. Lengths are shares of the picture's side."""

    x: float = 0.5
    """Centre, 0 at the left edge and 1 at the right one."""
    y: float = 0.5
    """Centre, 0 at the upper edge and 1 at the lower one."""
    size: float = 0.7
    """Side of the square that it fills."""
    tilt: float = 0.0
    """Degrees against the clock."""
    mirrored: bool = False
    """It looks to the right, and to the left if mirrored."""


def draw_creature(draw: Random) -> Creature:
    """A creature with all traits at random; neighbouring colours differ."""
    colour = draw.choice(SKINS)
    others = [name for name in COLOURS if name != colour]
    return Creature(
        body=draw.choice(BODIES),
        colour=colour,
        pattern=draw.choice(PATTERNS),
        accent=draw.choice(others),
        eyes=draw.randint(1, 3),
        top=draw.choice(TOPS),
        top_colour=draw.choice(others),
    )


def shared_traits(one: Creature, other: Creature) -> int:
    """How many of the seven traits two creatures have in common."""
    return sum(getattr(one, field.name) == getattr(other, field.name) for field in dataclasses.fields(Creature))
