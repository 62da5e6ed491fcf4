"""Krippendorff's alpha: how far raters agree beyond what chance would give. Pure Python."""

import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

Level = Literal["nominal", "ordinal", "interval"]


def alpha(units: Iterable[Sequence[float]], level: Level = "ordinal") -> float | None:
    """Agreement: 1 is perfect, 0 is what values thrown together at random would give, below 0 is less than that.

    Args:
        units: the values that each thing was given, whoever gave them; things with one value count nothing.
        level: nominal asks only whether two values are equal; ordinal how many values lie between them; interval
            takes their squared distance.

    Returns:
        None if fewer than two values can be compared, or all are the same, so that agreement has no measure.

    Source: Krippendorff (2011), Computing Krippendorff's Alpha-Reliability: 1 - observed / expected disagreement.
    """
    units = [unit for unit in units if len(unit) > 1]
    together: dict[tuple[float, float], float] = defaultdict(
        float
    )  # coincidences: ordered pairs of values within a unit
    for unit in units:
        for one, other in itertools.permutations(unit, 2):
            together[one, other] += 1 / (len(unit) - 1)
    sizes: dict[float, float] = defaultdict(float)
    for (one, _), weight in together.items():
        sizes[one] += weight
    values, total = sorted(sizes), sum(sizes.values())
    distance = {pair: _squared_distance(*pair, values, sizes, level) for pair in itertools.product(values, values)}
    expected = sum(sizes[one] * sizes[other] * distance[one, other] for one, other in distance)
    if not expected:
        return None
    observed = sum(weight * distance[pair] for pair, weight in together.items())
    return 1 - (total - 1) * observed / expected


def _squared_distance(
    one: float, other: float, values: Sequence[float], sizes: Mapping[float, float], level: Level
) -> float:
    if level == "nominal":
        return float(one != other)
    if level == "interval":
        return (one - other) ** 2
    low, high = sorted((one, other))
    between = sum(sizes[value] for value in values if low <= value <= high)
    return (between - (sizes[one] + sizes[other]) / 2) ** 2
