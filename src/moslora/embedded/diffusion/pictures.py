"""What the embedded diffusion model learns from: drawn pictures with captions."""

import dataclasses
from collections.abc import Callable
from functools import partial
from random import Random
from typing import NamedTuple

from PIL import Image

from ..characters import SUBJECT, Creature, Pose, creature_name, draw_creature, paint, shared_traits
from ..scenes import (
    BACKGROUNDS,
    COLOURS,
    Scene,
    caption,
    draw_item,
    draw_scene,
    item_name,
    place_name,
    render,
    with_article,
)
from .parts import SIDE

MOST_SHARED = 3  # traits of seven that a creature of these pictures may have in common with the subject
PLACES = tuple(name for name in BACKGROUNDS if name not in COLOURS)
CREATURES, COMPANIONS = 0.7, 0.25  # shares: of pictures with a creature, and of those with an item beside it
PORTRAIT, PORTRAIT_ITEM = Pose(size=0.9), 0.6  # place and size of what stands alone in the middle
_OPENINGS = ("", "", "a photo of ", "a photo of ", "a picture of ", "a drawing of ")
_NAMED = 0.1  # share of creatures with a name, which says nothing about them


class Motif(NamedTuple):
    """What a picture shows, in words and, once painted, in pixels."""

    caption: str
    paint: Callable[[int], Image.Image]  # takes the side in pixels; RGB


class Picture(NamedTuple):
    """A picture with its caption and what SDXL calls micro-conditioning."""

    image: Image.Image  # SIDE x SIDE, RGB
    caption: str
    original_side: int  # of the picture that it was made of, in pixels
    crop: tuple[int, int]  # pixels cut off at the top and at the left


def draw_picture(draw: Random) -> Picture:
    """A picture; a tenth are cut out of a larger one, others were larger or smaller once."""
    margin = draw.randint(4, 20) if draw.random() < 0.1 else 0
    side = SIDE + margin
    words, paint_motif = draw_motif(draw)
    image = paint_motif(side)
    if margin:
        top, left = draw.randint(0, margin), draw.randint(0, margin)
        return Picture(image.crop((left, top, left + SIDE, top + SIDE)), words, side, (top, left))
    return _resized(draw, image, words)


def draw_portrait(draw: Random) -> Picture:
    """A picture of one thing in the middle, always about as large: what a small denoiser learns in few steps."""
    if draw.random() < CREATURES:
        creature = new_creature(draw)
        scene = _empty_scene(draw, creature)
        name = with_article(_draw_name(draw, creature))
        words = f"{draw.choice(_OPENINGS)}{name} {place_name(scene.background)}"
        image = paint(render(scene, SIDE), creature, PORTRAIT)
    else:
        scene = draw_scene(draw, backgrounds=_backgrounds(draw))
        items = [dataclasses.replace(item, x=0.5, y=0.5, size=PORTRAIT_ITEM) for item in scene.items]
        scene = dataclasses.replace(scene, items=tuple(items))
        words, image = caption(draw, scene), render(scene, SIDE)
    return _resized(draw, image, words)


def draw_motif(draw: Random) -> Motif:
    """A creature, at times with an item beside it, or items alone."""
    if draw.random() < CREATURES:
        return _draw_creature(draw)
    scene = draw_scene(draw, count=draw.choice((1, 1, 2)), backgrounds=_backgrounds(draw), sizes=("medium", "large"))
    return Motif(caption(draw, scene), partial(render, scene))


def new_creature(draw: Random) -> Creature:
    """A creature that is unlike the subject."""
    while shared_traits(creature := draw_creature(draw), SUBJECT) > MOST_SHARED:
        pass
    return creature


def _resized(draw: Random, image: Image.Image, words: str) -> Picture:
    """The picture as one that was larger once, which cannot be seen, or smaller, which blurs; usually neither."""
    kind, original = draw.random(), SIDE
    if kind >= 0.9:
        original = draw.randint(SIDE // 3, 2 * SIDE // 3)
        image = image.resize((original, original), Image.Resampling.BOX).resize((SIDE, SIDE), Image.Resampling.BILINEAR)
    elif kind >= 0.75:
        original = draw.randint(SIDE, 16 * SIDE)
    return Picture(image, words, original, (0, 0))


def _backgrounds(draw: Random) -> tuple[str, ...]:
    """The places, or the plain colours."""
    return PLACES if draw.random() < 0.6 else tuple(COLOURS)


def _draw_creature(draw: Random) -> Motif:
    """A creature in some place."""
    creature = new_creature(draw)
    scene = _empty_scene(draw, creature)
    name = _draw_name(draw, creature)
    where = place_name(scene.background)
    size = draw.uniform(0.65, 0.95)
    x = 0.5 + draw.uniform(-0.5, 0.5) * (1 - size)
    if draw.random() < COMPANIONS:
        size = draw.uniform(0.55, 0.65)
        direction = draw.choice((-1, 1))
        item = draw_item(draw, colours=[name for name in COLOURS if name != scene.background], sizes=("medium",))
        beside = 0.5 + direction * (0.48 - item.size / 2)
        scene = dataclasses.replace(scene, items=(dataclasses.replace(item, x=beside, y=draw.uniform(0.5, 0.8)),))
        x = 0.5 - direction * (0.49 - size / 2)
        where = f"{draw.choice(('next to', 'beside'))} {with_article(item_name(item))} {where}"
    y = 0.5 + draw.uniform(-0.5, 0.5) * (1 - size)
    pose = Pose(x=x, y=y, size=size, tilt=draw.uniform(-8, 8), mirrored=draw.random() < 0.5)
    words = f"{draw.choice(_OPENINGS)}{with_article(name)} {where}"
    return Motif(words, lambda side: paint(render(scene, side), creature, pose))


def _empty_scene(draw: Random, creature: Creature) -> Scene:
    """A ground on which the creature can be seen."""
    grounds = [name for name in _backgrounds(draw) if name not in (creature.colour, creature.accent)]
    return Scene(items=(), background=draw.choice(grounds), seed=draw.randrange(2**16))


def _draw_name(draw: Random, creature: Creature) -> str:
    """Words for a creature; a tenth have an invented name as well."""
    name = creature_name(draw, creature)
    if draw.random() < _NAMED:
        name = f"{''.join(draw.choices('abcdefghijklmnopqrstuvwxyz', k=3))} {name}"
    return name
