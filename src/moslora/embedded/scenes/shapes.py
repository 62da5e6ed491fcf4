"""Outlines of the shapes, in a square from (-1, -1), top left, to (1, 1), bottom right."""

import math
from collections.abc import Iterable
from types import MappingProxyType

Point = tuple[float, float]
Outline = tuple[Point, ...]

ROUND = 48  # corners of a circle


def _around(radii: Iterable[float], start: float = -math.pi / 2) -> Outline:
    """Points at equal angles, clockwise from the top, at these distances from the middle."""
    radii = tuple(radii)
    angles = [start + 2 * math.pi * number / len(radii) for number in range(len(radii))]
    return tuple((radius * math.cos(a), radius * math.sin(a)) for radius, a in zip(radii, angles, strict=True))


def _heart() -> Outline:
    angles = [2 * math.pi * number / ROUND for number in range(ROUND)]
    heights = [13 * math.cos(a) - 5 * math.cos(2 * a) - 2 * math.cos(3 * a) - math.cos(4 * a) for a in angles]
    return tuple((math.sin(a) ** 3, -(height + 2.5) / 14.5) for a, height in zip(angles, heights, strict=True))


def _moon() -> Outline:
    """A circle without a smaller one to its right."""
    outer = [2 * math.pi * number / ROUND for number in range(ROUND // 8, ROUND - ROUND // 8 + 1)]
    rim = [(math.cos(a), math.sin(a)) for a in outer]
    top, tip = rim[-1][1], rim[0][0]
    inner = [(tip + 0.75 * top * math.cos(a), -top * math.sin(a)) for a in _half_turn()]
    return tuple((x + 0.15, y) for x, y in rim + inner)


def _half_turn() -> list[float]:
    return [-math.pi / 2 + math.pi * number / (ROUND // 2) for number in range(ROUND // 2 + 1)]


# shape -> its outline, and the outline of its hole
SHAPES: MappingProxyType[str, tuple[Outline, Outline]] = MappingProxyType(
    {
        "circle": (_around([1.0] * ROUND), ()),
        "square": (((-0.88, -0.88), (0.88, -0.88), (0.88, 0.88), (-0.88, 0.88)), ()),
        "triangle": (((0.0, -0.95), (1.0, 0.9), (-1.0, 0.9)), ()),
        "star": (_around([1.0, 0.42] * 5), ()),
        "heart": (_heart(), ()),
        "ring": (_around([1.0] * ROUND), _around([0.52] * ROUND)),
        "cross": (
            tuple(
                (x * turn[0] - y * turn[1], x * turn[1] + y * turn[0])
                for turn in ((1, 0), (0, 1), (-1, 0), (0, -1))
                for x, y in ((-0.34, -1.0), (0.34, -1.0), (0.34, -0.34))
            ),
            (),
        ),
        "diamond": (((0.0, -1.0), (0.78, 0.0), (0.0, 1.0), (-0.78, 0.0)), ()),
        "moon": (_moon(), ()),
        "arrow": (
            ((0.0, -1.0), (0.85, -0.1), (0.34, -0.1), (0.34, 1.0), (-0.34, 1.0), (-0.34, -0.1), (-0.85, -0.1)),
            (),
        ),
    }
)
