"""Drawn creatures: what is painted, what is said of it, and the subject that is held out."""

import dataclasses
import hashlib
from random import Random

import numpy as np
import pytest
from PIL import Image

from moslora.embedded.characters import (
    BODIES,
    PATTERNS,
    PROMPTS,
    SUBJECT,
    TOPS,
    Creature,
    Pose,
    creature_name,
    draw_creature,
    paint,
    shared_traits,
    subject_pictures,
    write_subject,
)
from moslora.embedded.scenes import COLOURS

CHANGES = {
    "body": "square",
    "colour": "green",
    "pattern": "plain",
    "accent": "red",
    "eyes": 1,
    "top": "ears",
    "top_colour": "pink",
}


def _painted(creature: Creature, pose: Pose = Pose(size=0.9)) -> np.ndarray:  # noqa: B008
    return np.asarray(paint(Image.new("RGB", (64, 64), COLOURS["white"]), creature, pose)).astype(int)


def _share(picture: np.ndarray, colour: str) -> float:
    """Share of pixels that have this colour, nearly."""
    return float((np.abs(picture - COLOURS[colour]).max(axis=-1) < 30).mean())


@pytest.mark.parametrize("trait", CHANGES)
def test_every_trait_can_be_seen(trait):
    other = dataclasses.replace(SUBJECT, **{trait: CHANGES[trait]})
    assert shared_traits(SUBJECT, other) == 6
    assert (np.abs(_painted(SUBJECT) - _painted(other)).max(axis=-1) > 60).sum() > 30


def test_a_creature_has_its_colours_and_no_others():
    picture = _painted(SUBJECT)
    assert _share(picture, "purple") > 0.07
    assert _share(picture, "cyan") > 0.07
    assert _share(picture, "yellow") > 0.03
    assert max(_share(picture, colour) for colour in ("green", "red", "orange", "pink")) < 0.01


def test_size_place_and_mirror_are_those_of_the_pose():
    small = _painted(SUBJECT, Pose(x=0.25, y=0.75, size=0.5))
    assert (small[:32] == 245).all()
    assert (small[:, 32:] == 245).all()
    assert not (small[32:, :32] == 245).all()
    there, back = _painted(SUBJECT, Pose(size=1.0)), _painted(SUBJECT, Pose(size=1.0, mirrored=True))
    assert (back == there[:, ::-1]).mean() > 0.99
    assert (there != back).any(), "it looks to one side"


def test_painting_leaves_the_picture_it_is_given_alone():
    picture = Image.new("RGB", (64, 64), "white")
    paint(picture, SUBJECT, Pose())
    assert picture.getextrema() == ((255, 255),) * 3


def test_a_seed_decides_a_creature_and_all_traits_occur():
    assert draw_creature(Random(3)) == draw_creature(Random(3))
    drawn = [draw_creature(Random(seed)) for seed in range(300)]
    assert {each.body for each in drawn} == set(BODIES)
    assert {each.pattern for each in drawn} == set(PATTERNS)
    assert {each.top for each in drawn} == set(TOPS)
    assert all(each.colour not in (each.accent, each.top_colour) for each in drawn)


def test_a_name_says_nothing_that_is_not_so():
    for seed in range(300):
        creature, name = draw_creature(Random(seed)), creature_name(Random(seed), draw_creature(Random(seed)))
        own = {creature.body, creature.colour, creature.pattern, creature.top, creature.top_colour}
        every = {*BODIES, *PATTERNS, *TOPS, *COLOURS} - own
        words = set(name.split())
        assert not words & every, (creature, name)
        eyes = {1: "one eye", 2: "two eyes", 3: "three eyes"}
        assert not [words for number, words in eyes.items() if number != creature.eyes and words in name]
        assert "creature" in words


def test_the_subject_is_written_as_five_pictures_and_a_prompt_a_line(tmp_path):
    write_subject(tmp_path)
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == [f"{number}.png" for number in range(1, 6)]
    for name, picture in zip(names, subject_pictures(), strict=True):
        assert Image.open(tmp_path / "images" / name).tobytes() == picture.tobytes()
    assert (tmp_path / "prompts.txt").read_text().splitlines() == list(PROMPTS)
    assert all("sks creature" in prompt for prompt in PROMPTS)


def test_the_pictures_of_the_subject_are_the_same_everywhere():
    together = hashlib.sha256(b"".join(picture.tobytes() for picture in subject_pictures()))
    assert together.hexdigest() == "48aaeeb1c6f74738a3cac7955b54a68d778c27e816abfc4eb0930e98dbd1b0ed"


def test_the_five_pictures_differ_in_place_size_and_direction():
    pictures = [np.asarray(picture).astype(int) for picture in subject_pictures()]
    corners = {tuple(picture[0, 0].tolist()) for picture in pictures}
    assert len(corners) == 5
    assert len({round(_share(picture, "yellow"), 3) for picture in pictures}) == 5
