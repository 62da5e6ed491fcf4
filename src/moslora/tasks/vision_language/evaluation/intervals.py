"""Scores with their intervals: Wilson's where a score is a share, a bootstrap where it is not."""

import math
from collections.abc import Callable, Sequence
from typing import Any

from ...commonsense.score import wilson_interval

RESAMPLES = 2000
BOOTSTRAP = f"bootstrap 95 % (percentile, {RESAMPLES} resamples)"


def share(correct: int, total: int) -> dict[str, Any]:
    """Score, interval and counts of `correct` answers out of `total`."""
    return {
        "score": correct / total,
        "interval": list(wilson_interval(correct, total)),
        "interval_method": "Wilson 95 %",
        "correct": correct,
        "n": total,
    }


def mean(values: Sequence[float]) -> dict[str, Any]:
    """Mean of values in [0, 1] that are no mere right or wrong, with its bootstrap interval."""
    import numpy

    return {
        "score": math.fsum(values) / len(values),
        "interval": bootstrap_interval([values], numpy.mean),
        "interval_method": BOOTSTRAP,
        "n": len(values),
    }


def bootstrap_interval(samples: Sequence[Sequence[Any]], statistic: Callable[..., Any]) -> list[float] | None:
    """Percentile interval of a statistic, each sample drawn anew from itself.

    Args:
        samples: one or several; from each, as many are drawn as it has.
        statistic: takes as many arrays as there are samples, whose last axis is the draws, and the keyword `axis`.

    Returns:
        its two ends, always the same for the same samples; None if a sample has fewer than two values.
    """
    import numpy
    from scipy.stats import bootstrap

    if not samples or min(map(len, samples)) < 2:
        return None
    found = bootstrap(
        [numpy.asarray(sample, dtype=float) for sample in samples],
        statistic,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=50,  # a resample of TextVQA is 5000 numbers
        method="percentile",
        rng=numpy.random.default_rng(0),
    ).confidence_interval
    return [float(found.low), float(found.high)]
