"""Creatures as pictures."""

import math
from collections.abc import Callable
from typing import NamedTuple

from PIL import Image, ImageChops, ImageDraw

from ..scenes import COLOURS
from .model import Creature, Pose

FINER = 4  # a creature is painted this much larger and then reduced, which smooths its edges

Colour = tuple[int, int, int]
Fill = Colour | int
Point = tuple[float, float]
DARK = (25, 20, 30)
WHITE = (250, 250, 250)
BODY_CENTRE = 0.27  # all lengths here are those of a square from (-1, -1), top left, to (1, 1), bottom right
CORNERS = 48  # of the outline of a body


class _Form(NamedTuple):
    """The outline of a body: a superellipse that may be wider below."""

    half_width: float
    half_height: float
    power: float = 1.0  # 1 is an ellipse, 0 a rectangle
    wider: float = 0.0  # how much wider it is below than above
    eyes: float = 1.0  # size of the eyes and of the gaps between them


_FORMS = {
    "round": _Form(0.72, 0.6),
    "tall": _Form(0.46, 0.64, eyes=0.85),
    "square": _Form(0.6, 0.56, power=0.35),
    "chubby": _Form(0.56, 0.62, wider=0.45, eyes=0.85),
}
_EYES = {1: (0.0,), 2: (-0.22, 0.22), 3: (-0.34, 0.0, 0.34)}  # number -> where they are from left to right
_EYE_RADIUS = {1: 0.25, 2: 0.19, 3: 0.155}


def paint(picture: Image.Image, creature: Creature, pose: Pose) -> Image.Image:
    """A copy of the picture (square, RGB) with the creature in it."""
    side = picture.width
    figure = max(1, round(side * pose.size))
    layer = _figure(creature, FINER * figure)
    if pose.mirrored:
        layer = layer.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    layer = layer.rotate(pose.tilt, Image.Resampling.BICUBIC).resize((figure, figure), Image.Resampling.BOX)
    painted = picture.copy()
    painted.paste(layer, (round(pose.x * side - figure / 2), round(pose.y * side - figure / 2)), layer)
    return painted


class _Pen:
    """Draws in the square from (-1, -1) to (1, 1)."""

    def __init__(self, picture: Image.Image) -> None:
        self.half = picture.width / 2
        self.draw = ImageDraw.Draw(picture)

    def scaled(self, *lengths: float) -> list[float]:
        """Pixels of coordinates."""
        return [(length + 1) * self.half for length in lengths]

    def oval(self, x: float, y: float, width: float, height: float, fill: Fill) -> None:
        """An ellipse about (x, y); width and height from its centre."""
        self.draw.ellipse(self.scaled(x - width, y - height, x + width, y + height), fill=fill)

    def polygon(self, points: list[Point], fill: Fill) -> None:
        """A filled polygon."""
        self.draw.polygon(self.scaled(*(length for point in points for length in point)), fill=fill)

    def line(self, points: list[Point], width: float, fill: Fill) -> None:
        """A line of this width."""
        places = self.scaled(*(length for point in points for length in point))
        self.draw.line(places, fill=fill, width=max(1, round(width * self.half)), joint="curve")


def _figure(creature: Creature, side: int) -> Image.Image:
    """The creature alone, RGBA, on a transparent ground."""
    figure = Image.new("RGBA", (side, side), (0, 0, 0, 0))
    pen = _Pen(figure)
    skin, accent = COLOURS[creature.colour], COLOURS[creature.accent]
    form = _FORMS[creature.body]
    if creature.top != "nothing":
        _TOPS[creature.top](pen, BODY_CENTRE - form.half_height, COLOURS[creature.top_colour], skin)
    for direction in (-1, 1):
        pen.oval(direction * 0.28, 0.88, 0.2, 0.11, accent)
        pen.oval(direction * (form.half_width + 0.06), BODY_CENTRE + 0.15, 0.14, 0.1, skin)
    mask = Image.new("L", (side, side), 0)
    _Pen(mask).polygon(_outline(form), 255)
    figure.paste(skin, (0, 0), mask)
    figure.paste(accent, (0, 0), ImageChops.multiply(mask, _pattern(creature.pattern, side)))
    _paint_face(pen, creature.eyes, form.eyes)
    return figure


def _paint_face(pen: _Pen, eyes: int, scale: float) -> None:
    """Eyes that look to the right, and a mouth."""
    radius, height = _EYE_RADIUS[eyes] * scale, BODY_CENTRE - 0.16
    for x in _EYES[eyes]:
        pen.oval(x * scale, height, radius, radius, DARK)
        pen.oval(x * scale, height, radius * 0.86, radius * 0.86, WHITE)
        pen.oval(x * scale + radius * 0.3, height, radius * 0.48, radius * 0.48, DARK)
    pen.line([(-0.2, 0.46), (-0.08, 0.53), (0.08, 0.53), (0.2, 0.46)], 0.07, DARK)


def _outline(form: _Form) -> list[Point]:
    """Corners of a body, clockwise."""
    points = []
    for number in range(CORNERS):
        angle = 2 * math.pi * number / CORNERS
        x, y = (math.copysign(abs(part) ** form.power, part) for part in (math.cos(angle), math.sin(angle)))
        points.append((x * form.half_width * (1 + form.wider * y), BODY_CENTRE + y * form.half_height))
    return points


def _pattern(name: str, side: int) -> Image.Image:
    """Where the accent goes: L, 0 or 255."""
    pattern = Image.new("L", (side, side), 0)
    pen = _Pen(pattern)
    if name == "striped":
        for top in (-0.24, 0.3, 0.62):
            pen.polygon([(-1, top), (1, top), (1, top + 0.17), (-1, top + 0.17)], 255)
    if name == "dotted":
        for x, y in ((-0.45, 0.4), (0.45, 0.4), (0.0, 0.7), (-0.28, -0.24), (0.28, -0.24), (-0.4, 0.72), (0.4, 0.72)):
            pen.oval(x, y, 0.11, 0.11, 255)
    return pattern


def _hat(pen: _Pen, crown: float, colour: Colour, skin: Colour) -> None:
    pen.polygon([(-0.34, crown + 0.12), (0.0, -1.0), (0.34, crown + 0.12)], colour)
    pen.oval(0.0, crown + 0.1, 0.46, 0.09, colour)


def _antennae(pen: _Pen, crown: float, colour: Colour, skin: Colour) -> None:
    for direction in (-1, 1):
        pen.line([(direction * 0.14, crown + 0.1), (direction * 0.36, -0.78)], 0.08, DARK)
        pen.oval(direction * 0.38, -0.82, 0.15, 0.15, colour)


def _horns(pen: _Pen, crown: float, colour: Colour, skin: Colour) -> None:
    for direction in (-1, 1):
        base = [(direction * 0.1, crown + 0.12), (direction * 0.46, crown + 0.26)]
        pen.polygon([*base, (direction * 0.56, crown - 0.4)], colour)


def _ears(pen: _Pen, crown: float, colour: Colour, skin: Colour) -> None:
    for direction in (-1, 1):
        pen.oval(direction * 0.38, crown - 0.02, 0.24, 0.3, skin)
        pen.oval(direction * 0.38, crown - 0.02, 0.13, 0.2, colour)


_TOPS: dict[str, Callable[[_Pen, float, Colour, Colour], None]] = {
    "hat": _hat,
    "antennae": _antennae,
    "horns": _horns,
    "ears": _ears,
}
