"""Timings that survive a busy machine: arms run in turn, and only ratios within one round are looked at."""

import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

import torch


class Ratio(NamedTuple):
    """Time of one arm over that of another, over all rounds."""

    median: float
    low: float  # 20th percentile
    high: float  # 80th percentile

    def __str__(self) -> str:
        return f"{self.median:.3f} ({self.low:.3f} to {self.high:.3f})"


def interleave(
    arms: Mapping[str, Callable[[], object]],
    rounds: int,
    after: Callable[[], object] = lambda: None,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, list[float]]:
    """Seconds of every arm in every round. The order turns from round to round; one round before is not counted.

    Args:
        arms: name -> one measurement's work.
        rounds: rounds that count.
        after: called after each round, for example to move a progress bar.
        clock: of seconds; time.process_time for work of one thread on a processor that others use too.
    """
    names = list(arms)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds + 1):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            _synchronize()
            start = clock()
            arms[name]()
            _synchronize()
            if number:
                seconds[name].append(clock() - start)
        after()
    return seconds


def ratio(seconds: Mapping[str, list[float]], arm: str, over: str) -> Ratio:
    """Median and 20/80 percentiles of `arm` over `over`, round by round."""
    ratios = [a / b for a, b in zip(seconds[arm], seconds[over], strict=True)]
    if len(ratios) < 2:
        return Ratio(ratios[0], ratios[0], ratios[0])
    quintiles = statistics.quantiles(ratios, n=5, method="inclusive")
    return Ratio(statistics.median(ratios), quintiles[0], quintiles[-1])


def ratios(seconds: Mapping[str, list[float]], arms: Iterable[str], references: Iterable[str]) -> dict[str, dict]:
    """arm -> reference -> ratio as a dict, for a results file."""
    references = [name for name in references if name in seconds]
    return {arm: {over: ratio(seconds, arm, over)._asdict() for over in references} for arm in arms}


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
