"""What the items stand on: plain colours and a few patterned grounds."""

from collections.abc import Callable
from functools import partial
from random import Random
from types import MappingProxyType

from PIL import Image, ImageDraw

from .model import COLOURS, Colour

Painter = Callable[[Random, int], Image.Image]


def _plain(colour: Colour, draw: Random, side: int) -> Image.Image:
    return Image.new("RGB", (side, side), colour)


def _strokes(
    draw: Random, side: int, ground: Colour, spread: int, count: int, step: tuple[float, float]
) -> Image.Image:
    """Short strokes in shades of the ground; `step` is their length to the right and downwards, 1 the whole side."""
    picture = Image.new("RGB", (side, side), ground)
    pen = ImageDraw.Draw(picture)
    for _ in range(count):
        x, y, change, length = draw.random(), draw.random(), draw.randint(-spread, spread), draw.uniform(0.5, 1.5)
        end = (x + step[0] * length, y + step[1] * length)
        shade = _changed(ground, change)
        pen.line([x * side, y * side, end[0] * side, end[1] * side], fill=shade, width=max(1, side // 64))
    return picture


def _grass(draw: Random, side: int) -> Image.Image:
    return _strokes(draw, side, (95, 170, 70), 45, 260, (0.012, -0.06))


def _sand(draw: Random, side: int) -> Image.Image:
    return _strokes(draw, side, (228, 200, 145), 28, 320, (0.01, 0.0))


def _water(draw: Random, side: int) -> Image.Image:
    return _strokes(draw, side, (75, 150, 205), 35, 130, (0.12, 0.0))


def _snow(draw: Random, side: int) -> Image.Image:
    return _strokes(draw, side, (228, 234, 242), 20, 160, (0.015, 0.006))


def _night_sky(draw: Random, side: int) -> Image.Image:
    picture = Image.new("RGB", (side, side), (18, 22, 60))
    pen = ImageDraw.Draw(picture)
    for _ in range(28):
        x, y, radius = draw.random() * side, draw.random() * side, side * draw.uniform(0.005, 0.013)
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=(235, 235, 200))
    return picture


def _wooden_floor(draw: Random, side: int) -> Image.Image:
    picture, boards = Image.new("RGB", (side, side)), 5
    pen = ImageDraw.Draw(picture)
    for board in range(boards):
        top, bottom = side * board / boards, side * (board + 1) / boards
        shade = _changed((170, 115, 65), draw.randint(-18, 18))
        pen.rectangle([0, top, side, bottom], fill=shade)
        joint = draw.random() * side
        pen.line([joint, top, joint, bottom], fill=(105, 65, 30), width=max(1, side // 90))
        pen.line([0, bottom, side, bottom], fill=(105, 65, 30), width=max(1, side // 90))
    return picture


def _brick_wall(draw: Random, side: int) -> Image.Image:
    picture, rows = Image.new("RGB", (side, side), (205, 195, 185)), 7
    pen, height = ImageDraw.Draw(picture), side / 7
    for row in range(rows):
        for column in range(-1, 4):
            left = (column + (row % 2) / 2) * side / 3.5
            shade = _changed((165, 75, 55), draw.randint(-16, 16))
            box = [left, row * height, left + side / 3.5 - side / 45, (row + 1) * height - side / 45]
            pen.rectangle(box, fill=shade)
    return picture


def _tiles(draw: Random, side: int) -> Image.Image:
    picture, cells = Image.new("RGB", (side, side), (238, 238, 232)), 8
    pen, width = ImageDraw.Draw(picture), side / 8
    for row in range(cells):
        for column in range(row % 2, cells, 2):
            pen.rectangle([column * width, row * width, (column + 1) * width, (row + 1) * width], fill=(190, 198, 205))
    return picture


def _changed(colour: Colour, change: int) -> Colour:
    red, green, blue = (min(255, max(0, part + change)) for part in colour)
    return red, green, blue


PLAIN = MappingProxyType({name: partial(_plain, colour) for name, colour in COLOURS.items()})
# A painter takes a random stream and the side of the picture in pixels.
BACKGROUNDS: MappingProxyType[str, Painter] = MappingProxyType(
    {
        **PLAIN,
        "grass": _grass,
        "sand": _sand,
        "water": _water,
        "snow": _snow,
        "night sky": _night_sky,
        "wooden floor": _wooden_floor,
        "brick wall": _brick_wall,
        "tiles": _tiles,
    }
)
