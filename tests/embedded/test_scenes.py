"""Scenes: what is drawn is where and how the scene says, captions are true, and a seed decides all of it."""

import hashlib
import os
import subprocess
import sys
from random import Random

import numpy as np
import pytest

from moslora.embedded.scenes import (
    BACKGROUNDS,
    COLOURS,
    SHAPES,
    SIZES,
    TEXTURES,
    Item,
    Scene,
    caption,
    cell_centre,
    cell_of,
    draw_scene,
    place_name,
    render,
    size_name,
)
from moslora.errors import MoSLoRAError


def _pixels(scene: Scene, size: int = 64) -> np.ndarray:
    return np.asarray(render(scene, size)).astype(int)


def _painted(scene: Scene, size: int = 64) -> np.ndarray:
    """Where items changed the background."""
    empty = Scene(items=(), background=scene.background, seed=scene.seed)
    return (_pixels(scene, size) != _pixels(empty, size)).any(-1)


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_fills_its_square_and_leaves_the_rest(shape):
    painted = _painted(Scene(items=(Item(shape=shape, colour="red", x=0.25, y=0.75, size=0.5),)))
    rows, columns = np.nonzero(painted)
    assert 0 <= columns.min() <= 5
    assert 26 <= columns.max() <= 32
    assert 31 <= rows.min() <= 34
    assert rows.max() >= 60
    assert 0.2 < painted[32:, :32].mean() < 0.95


def test_the_middle_of_a_circle_has_its_colour_and_that_of_a_ring_shows_the_ground():
    for shape, colour in (("circle", COLOURS["green"]), ("ring", COLOURS["yellow"])):
        middle = _pixels(Scene(items=(Item(shape=shape, colour="green", size=0.8),), background="yellow"))[32, 32]
        assert tuple(middle) == colour


@pytest.mark.parametrize("texture", TEXTURES)
def test_a_texture_adds_a_second_colour_inside_the_shape_alone(texture):
    item = Item(shape="circle", colour="blue", size=0.8, texture=texture)
    plain = Item(shape="circle", colour="blue", size=0.8)
    pixels, ground = _pixels(Scene(items=(item,), background="grass")), _pixels(Scene(items=(), background="grass"))
    inside = _painted(Scene(items=(plain,), background="grass"))
    assert (pixels == ground)[~inside].all()
    share = (pixels == COLOURS["white"]).all(-1)[inside].mean()
    assert share == 0 if texture == "plain" else 0.1 < share < 0.6


def test_later_items_cover_earlier_ones():
    items = (Item(shape="square", colour="red", size=0.8), Item(shape="circle", colour="blue", size=0.4))
    assert tuple(_pixels(Scene(items=items))[32, 32]) == COLOURS["blue"]


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_the_seed_of_a_scene_decides_its_ground(background):
    one, again = (_pixels(Scene(items=(), background=background, seed=3)) for _ in range(2))
    assert (one == again).all()
    assert one.std() > 2 or background in COLOURS


@pytest.mark.parametrize("seed", range(20))
def test_items_of_a_free_scene_lie_inside_and_touch_no_other(seed):
    items = draw_scene(Random(seed), count=4).items
    for number, item in enumerate(items):
        assert item.x - item.size / 2 >= 0
        assert item.x + item.size / 2 <= 1
        for other in items[:number]:
            assert max(abs(item.x - other.x), abs(item.y - other.y)) > (item.size + other.size) / 2


@pytest.mark.parametrize("count", [0, 3, 9])
def test_items_of_a_grid_stand_in_cells_of_their_own(count):
    scene = draw_scene(Random(count), count=count, grid=3)
    cells = [cell_of(item, scene.grid) for item in scene.items]
    assert len(set(cells)) == count
    for item, cell in zip(scene.items, cells, strict=True):
        assert (item.x, item.y) == cell_centre(*cell, 3)
        assert item.size < 1 / 3


def test_more_items_than_there_is_room_for_are_not_drawn():
    assert len(draw_scene(Random(0), count=12, grid=3).items) == 9
    assert 1 <= len(draw_scene(Random(0), count=500, sizes=("large",)).items) < 10


def test_only_the_kinds_that_are_asked_for_are_drawn_and_none_in_the_colour_of_the_ground():
    kinds = {"shapes": ("star",), "colours": ("red", "blue"), "textures": ("dotted",), "sizes": ("small",)}
    for seed in range(30):
        scene = draw_scene(Random(seed), count=3, backgrounds=("red", "sand"), **kinds)
        assert scene.background in ("red", "sand")
        assert all(
            (item.shape, item.texture, size_name(item.size)) == ("star", "dotted", "small") for item in scene.items
        )
        assert scene.background not in {item.colour for item in scene.items}


@pytest.mark.parametrize("seed", range(40))
def test_a_caption_names_every_item_and_the_ground(seed):
    draw = Random(seed)
    scene = draw_scene(draw, count=seed % 4)
    text = caption(draw, scene)
    assert text.endswith(".")
    assert place_name(scene.background) in text
    for item in scene.items:
        words = [item.colour, *([item.texture] if f"{item.texture} {item.shape}" in text else []), item.shape]
        assert " ".join(words) in text
    for size in SIZES:
        assert size not in text or size in {size_name(item.size) for item in scene.items}


def test_a_name_that_is_in_no_table_is_refused():
    with pytest.raises(MoSLoRAError, match=r"No shape is called blob\. Use circle, square"):
        render(Scene(items=(Item(shape="blob", colour="red"),)), 32)
    with pytest.raises(MoSLoRAError, match="No background is called moor"):
        render(Scene(items=(), background="moor"), 32)


_DRAWN = """
import hashlib, random
from moslora.embedded.scenes import caption, draw_scene, render
draw, found = random.Random(7), hashlib.sha256()
for number in range(20):
    scene = draw_scene(draw, count=number % 5, grid=3 * (number % 2))
    found.update(render(scene, 32).tobytes() + caption(draw, scene).encode() + repr(scene).encode())
print(found.hexdigest())
"""


def test_another_process_draws_the_same():
    hashes = {
        subprocess.run(
            [sys.executable, "-c", _DRAWN],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(hashes) == 1
    assert len(hashes.pop().strip()) == hashlib.sha256().digest_size * 2
