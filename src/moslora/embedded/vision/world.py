"""The scenes that the small vision-language model knows: things in free places, and grids of 3 x 3 cells."""

import dataclasses
from random import Random

from PIL import Image

from ..scenes import Colour, Item, Scene, cell_of, draw_scene, render

SHAPES = ("circle", "square", "triangle", "star", "heart", "cross")
COLOURS = ("red", "green", "blue", "yellow", "white", "black")
GROUNDS = ("grass", "sand", "water", "wooden floor", "black", "white", "grey")
GRID = 3
IMAGE_SIZE = 48  # pixels
SIDES = (30, 36, 48)  # pixels at which pictures of grids are drawn
GRID_SHARE = 0.7
FEW_SHARE = 0.6  # of the grids: those with three shapes and three colours
FEW_SHAPES, FEW_COLOURS = SHAPES[:3], COLOURS[:3]
BRIGHTNESS = 0.85, 1.5

Cell = tuple[int, int]  # row and column, from 0, of a ninth of the picture
CELLS: tuple[Cell, ...] = tuple((row, column) for row in range(GRID) for column in range(GRID))


def draw_world(draw: Random) -> Scene:
    """A scene of any kind; its items stand in reading order in a grid, and from left to right elsewhere."""
    if draw.random() < GRID_SHARE:
        return draw_grid(draw)
    return draw_free(draw)


def draw_grid(draw: Random) -> Scene:
    """Two to nine plain items in the cells of a grid."""
    count = draw.randint(2, GRID * GRID)
    if draw.random() < FEW_SHARE:
        scene = draw_scene(draw, count, GRID, GROUNDS[4:], FEW_SHAPES, FEW_COLOURS, ("plain",))
    else:
        scene = draw_scene(draw, count, GRID, GROUNDS, SHAPES, COLOURS, ("plain",))
    return _vivid(draw, dataclasses.replace(scene, items=tuple(sorted(scene.items, key=cell))))


def draw_free(draw: Random) -> Scene:
    """One to four items anywhere, no two of them in one cell."""
    while True:
        scene = draw_scene(draw, draw.randint(1, 4), 0, GROUNDS, SHAPES, COLOURS)
        if len(set(map(cell, scene.items))) == len(scene.items):
            break
    return _vivid(draw, dataclasses.replace(scene, items=tuple(sorted(scene.items, key=lambda item: item.x))))


def cell(item: Item) -> Cell:
    """Where the middle of an item is, in a grid or not."""
    return cell_of(item, GRID)


def draw_picture(draw: Random, scene: Scene) -> Image.Image:
    """The scene as a picture, a grid in one of several resolutions."""
    return render(scene, draw.choice(SIDES) if scene.grid else IMAGE_SIZE)


def _vivid(draw: Random, scene: Scene) -> Scene:
    """The same scene with every item darker or brighter."""
    return dataclasses.replace(scene, items=tuple(_brighter(item, draw.uniform(*BRIGHTNESS)) for item in scene.items))


def _brighter(item: Item, factor: float) -> Item:
    red, green, blue = (min(255, round(factor * part)) for part in item.rgb)
    tint: Colour = (red, green, blue)
    return dataclasses.replace(item, tint=tint)
