"""Small drawn scenes: objects of several shapes, colours and textures on backgrounds. Pure Python and Pillow.

    scene = draw_scene(Random(0))
    picture = render(scene, 64)
    caption(Random(0), scene)

A scene is data and can be written out by hand; everything that is drawn at random takes a `random.Random`, so that a
seed decides it, in every run.
"""

from .backgrounds import BACKGROUNDS
from .captions import caption, count_name, item_name, place_name, with_article
from .drawing import draw_item, draw_scene, free_place
from .model import COLOURS, SIZES, TEXTURES, Colour, Item, Scene, cell_centre, cell_of, size_name
from .picture import render
from .shapes import SHAPES

__all__ = [
    "BACKGROUNDS",
    "COLOURS",
    "SHAPES",
    "SIZES",
    "TEXTURES",
    "Colour",
    "Item",
    "Scene",
    "caption",
    "cell_centre",
    "cell_of",
    "count_name",
    "draw_item",
    "draw_scene",
    "free_place",
    "item_name",
    "place_name",
    "render",
    "size_name",
    "with_article",
]
