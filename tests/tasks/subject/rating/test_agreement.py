"""Krippendorff's alpha against the published worked examples."""

import random

import pytest

from moslora.tasks.subject.rating.agreement import alpha

# Krippendorff (2011), Computing Krippendorff's Alpha-Reliability, section C: 4 observers, 12 units, values missing.
FOUR_OBSERVERS = """
    1 2 3 3 2 1 4 1 2 . . .
    1 2 3 3 2 2 4 1 2 5 . 3
    . 3 3 3 2 3 4 2 2 5 1 .
    1 2 3 3 2 4 4 1 2 5 1 .
"""
# The example of the PyPI package `krippendorff`, also that of Wikipedia: 3 observers, 15 units.
THREE_OBSERVERS = """
    . . . . . 3 4 1 2 1 1 3 3 . 3
    1 . 2 1 3 3 4 3 . . . . . . .
    . . 2 1 3 4 4 . 2 1 1 3 3 . 4
"""
# Section A: 2 observers, 10 units, two values; section B: 2 observers, 12 units, five nominal values.
TWO_VALUES = """
    0 1 0 0 0 0 0 0 1 0
    1 1 1 0 0 1 0 0 0 0
"""
FIVE_VALUES = """
    1 1 2 2 4 3 3 3 5 4 4 1
    2 1 2 2 2 3 3 3 5 4 4 4
"""


def _units(table):
    rows = [line.split() for line in table.strip().splitlines()]
    return [[float(value) for value in column if value != "."] for column in zip(*rows, strict=True)]


@pytest.mark.parametrize(
    ("table", "level", "published"),
    [
        (TWO_VALUES, "nominal", 0.095),
        (FIVE_VALUES, "nominal", 0.692),
        (FOUR_OBSERVERS, "nominal", 0.743),
        (FOUR_OBSERVERS, "ordinal", 0.815),
        (FOUR_OBSERVERS, "interval", 0.849),
        (THREE_OBSERVERS, "nominal", 0.691),
        (THREE_OBSERVERS, "interval", 0.811),
    ],
)
def test_published_examples(table, level, published):
    assert alpha(_units(table), level) == pytest.approx(published, abs=6e-4)


@pytest.mark.parametrize("level", ["nominal", "ordinal", "interval"])
def test_perfect_agreement_is_one_and_chance_is_zero(level):
    assert alpha([[1, 1, 1], [0, 0], [-1, -1]], level) == pytest.approx(1)
    draw = random.Random(0)
    chance = [[draw.choice((-1, 0, 1)) for _ in range(15)] for _ in range(2000)]
    assert alpha(chance, level) == pytest.approx(0, abs=0.01)
    assert alpha([[1, -1], [-1, 1]], level) < 0


def test_two_values_have_one_alpha_at_every_level():
    units = _units(TWO_VALUES)
    assert alpha(units, "ordinal") == pytest.approx(alpha(units, "nominal"))
    assert alpha(units, "interval") == pytest.approx(alpha(units, "nominal"))


def test_without_anything_to_compare_there_is_no_alpha():
    assert alpha([]) is None
    assert alpha([[1], [0]]) is None
    assert alpha([[1, 1], [1, 1]]) is None
