"""Intervals, paired tests, correction for many tests, and power. scipy alone; formulas in docs/comparison.md."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scipy import special

LEVEL = 0.95
SIGNIFICANCE = 0.05
POWER = 0.8
# Accuracies are ratios of counts: what differs by less than this differs by rounding alone.
_ROUNDING = 1e-12
_LARGE = 2000  # from here on the normal distribution gives the same number of seeds to within one


class Difference(NamedTuple):
    """A paired comparison. `interval` is None below two pairs; `p` also where the pairs leave no variance to test."""

    difference: float
    interval: tuple[float, float] | None
    p: float | None
    seeds_needed: int | None
    pairs: int


def mean_interval(values: Sequence[float]) -> tuple[float, tuple[float, float] | None]:
    """Mean, and Student's 95 % interval of it: mean +- t(0.975, n - 1) s / sqrt n; None for a single value.

    Source: Student (1908), The probable error of a mean.
    """
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return mean, None
    half = float(special.stdtrit(len(values) - 1, (1 + LEVEL) / 2)) * _deviation(values) / math.sqrt(len(values))
    return mean, (mean - half, mean + half)


def compare_pairs(ours: Mapping[int, float], theirs: Mapping[int, float]) -> Difference | None:
    """Two-sided paired t test of `ours - theirs` over the seeds that both have; None if they share none.

    Differences that are all zero give p = 1. Differences that are all the same and not zero give no p: their variance
    is unknown, not zero.

    Args:
        ours: seed -> value.
        theirs: seed -> value.
    """
    differences = [ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())]
    if not differences:
        return None
    mean, interval = mean_interval(differences)
    pairs = len(differences)
    if interval is None:
        return Difference(mean, None, None, None, pairs)
    deviation = _deviation(differences)
    if deviation == 0:
        return Difference(mean, interval, 1.0 if abs(mean) < _ROUNDING else None, None, pairs)
    t = mean / (deviation / math.sqrt(pairs))
    p = 2 * float(special.stdtr(pairs - 1, -abs(t)))
    return Difference(mean, interval, p, seeds_needed(mean, deviation), pairs)


def holm(values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction: p values such that the chance of any false alarm stays below the level.

    Args:
        values: p values; None is left out of the count and stays None.

    Source: Holm (1979), A simple sequentially rejective multiple test procedure.
    """
    order = sorted((value, place) for place, value in enumerate(values) if value is not None)
    corrected: list[float | None] = [None] * len(values)
    largest = 0.0
    for rank, (value, place) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * value))
        corrected[place] = largest
    return corrected


def power(effect: float, pairs: int) -> float:
    """Chance that a two-sided paired t test at 5 % finds an effect.

    Args:
        effect: mean of the differences in units of their standard deviation.
        pairs: seeds, at least 2.

    Source: the noncentral t distribution with noncentrality effect * sqrt(pairs); Cohen (1988), section 2.
    """
    critical = float(special.stdtrit(pairs - 1, 1 - SIGNIFICANCE / 2))
    shift = abs(effect) * math.sqrt(pairs)
    # The share below -critical is that above it with the shift turned round; scipy's own lower tail can be NaN.
    above, below = (1 - float(special.nctdtr(pairs - 1, nc, critical)) for nc in (shift, -shift))
    return above + below


def seeds_needed(mean: float, deviation: float) -> int | None:
    """Seeds with which a paired t test finds this effect in 80 % of studies; None for no effect or no variance.

    Args:
        mean: of the differences.
        deviation: their standard deviation.
    """
    if abs(mean) < _ROUNDING or deviation == 0:
        return None
    effect = abs(mean) / deviation
    normal = (float(special.ndtri(1 - SIGNIFICANCE / 2) + special.ndtri(POWER)) / effect) ** 2
    if normal > _LARGE:
        return math.ceil(normal)
    # Power grows with the number of pairs, and the t test needs a few more than the normal one.
    low = max(2, math.floor(normal))
    return next(pairs for pairs in range(low, _LARGE + 100) if power(effect, pairs) >= POWER)


def _deviation(values: Sequence[float]) -> float:
    """Standard deviation with n - 1; 0 where the values are equal up to rounding."""
    mean = math.fsum(values) / len(values)
    if max(abs(value - mean) for value in values) < _ROUNDING:
        return 0.0
    return math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
