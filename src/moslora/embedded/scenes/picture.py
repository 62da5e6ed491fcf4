"""A scene as a picture."""

from random import Random

from PIL import Image, ImageChops, ImageDraw

from ...errors import MoSLoRAError
from .backgrounds import BACKGROUNDS
from .model import TEXTURES, Colour, Item, Scene
from .shapes import SHAPES

FINER = 4  # the scene is painted this much larger and then reduced, which smooths its edges


def render(scene: Scene, size: int) -> Image.Image:
    """The scene as an RGB picture of `size` x `size` pixels.

    Raises:
        MoSLoRAError: a shape, texture or background that is not in the tables.
    """
    _check(scene)
    side = FINER * size
    picture = BACKGROUNDS[scene.background](Random(scene.seed), side)
    for item in scene.items:
        _paint(picture, item)
    return picture.resize((size, size), Image.Resampling.BOX)


def _check(scene: Scene) -> None:
    used = {
        "background": ({scene.background}, BACKGROUNDS),
        "shape": ({item.shape for item in scene.items}, SHAPES),
        "texture": ({item.texture for item in scene.items}, TEXTURES),
    }
    for what, (names, known) in used.items():
        if unknown := sorted(names - set(known)):
            raise MoSLoRAError(f"No {what} is called {', '.join(unknown)}. Use {', '.join(known)}.")


def _paint(picture: Image.Image, item: Item) -> None:
    """Paint one item into the picture."""
    side = picture.width
    outline, hole = SHAPES[item.shape]
    mask = Image.new("L", picture.size, 0)
    pen = ImageDraw.Draw(mask)
    for points, value in ((outline, 255), (hole, 0)):
        if points:
            half = item.size / 2
            pen.polygon([((item.x + x * half) * side, (item.y + y * half) * side) for x, y in points], fill=value)
    picture.paste(item.rgb, (0, 0), mask)
    if item.texture != "plain":
        pattern = ImageChops.multiply(mask, _pattern(item, side))
        picture.paste(_contrast(item.rgb), (0, 0), pattern)


def _pattern(item: Item, side: int) -> Image.Image:
    """Where the second colour of a textured item goes: L, 0 or 255."""
    pattern = Image.new("L", (side, side), 0)
    pen = ImageDraw.Draw(pattern)
    left, top, unit = (item.x - item.size / 2) * side, (item.y - item.size / 2) * side, item.size * side / 6
    for row in range(6):
        for column in range(6):
            x, y = left + column * unit, top + row * unit
            if item.texture == "checked" and (row + column) % 2:
                pen.rectangle([x, y, x + unit - 1, y + unit - 1], fill=255)
            if item.texture == "striped" and row % 2:
                pen.rectangle([x, y, x + unit, y + unit - 1], fill=255)
            if item.texture == "dotted" and row % 2 and column % 2:
                pen.ellipse([x - unit * 0.55, y - unit * 0.55, x + unit * 0.55, y + unit * 0.55], fill=255)
    return pattern


def _contrast(colour: Colour) -> Colour:
    """White, or black on a light colour."""
    red, green, blue = colour
    return (20, 20, 25) if 0.3 * red + 0.59 * green + 0.11 * blue > 150 else (245, 245, 245)
