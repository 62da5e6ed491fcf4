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
    width = item.size * picture.width
    left, top = (round((centre - item.size / 2) * picture.width) for centre in (item.x, item.y))
    mask = Image.new("L", (round(width) + 1, round(width) + 1), 0)
    pen = ImageDraw.Draw(mask)
    outline, hole = SHAPES[item.shape]
    for points, value in ((outline, 255), (hole, 0)):
        if points:
            pen.polygon([((1 + x) * width / 2, (1 + y) * width / 2) for x, y in points], fill=value)
    picture.paste(item.rgb, (left, top), mask)
    if item.texture != "plain":
        pattern = _pattern(item.texture, mask.width)
        picture.paste(_contrast(item.rgb), (left, top), ImageChops.multiply(mask, pattern))


def _pattern(texture: str, width: int) -> Image.Image:
    """Where the second colour of a texture goes: L, 0 or 255."""
    pattern, unit = Image.new("L", (width, width), 0), width / 6
    pen = ImageDraw.Draw(pattern)
    for row in range(6):
        for column in range(6):
            x, y = column * unit, row * unit
            if texture == "checked" and (row + column) % 2:
                pen.rectangle([x, y, x + unit - 1, y + unit - 1], fill=255)
            if texture == "striped" and row % 2:
                pen.rectangle([x, y, x + unit, y + unit - 1], fill=255)
            if texture == "dotted" and row % 2 and column % 2:
                pen.ellipse([x - unit * 0.55, y - unit * 0.55, x + unit * 0.55, y + unit * 0.55], fill=255)
    return pattern


def _contrast(colour: Colour) -> Colour:
    """White, or black on a light colour."""
    red, green, blue = colour
    return (20, 20, 25) if 0.3 * red + 0.59 * green + 0.11 * blue > 150 else (245, 245, 245)
