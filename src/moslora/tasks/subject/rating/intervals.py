"""Intervals and tests for votes that are not independent: one rater gives many, one prompt gets many."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

Z = 1.959964  # 95 % of a normal distribution lie within so many deviations of its mean
DRAWS = 4000
METHOD = (
    "95 % intervals: Owen's pigeonhole bootstrap, which draws raters and, independently, prompts with replacement "
    f"({DRAWS} draws, percentiles widened by sqrt(m / (m - 1)), m the smaller number of raters and prompts)."
)
OUTCOMES = (1, 0, -1)  # win, tie, loss of B against A


class Shares(NamedTuple):
    """Win, tie, loss and their difference, as shares of the votes."""

    win: float
    tie: float
    loss: float
    delta: float  # win - loss, in [-1, 1]


class Sign(NamedTuple):
    """An exact sign test."""

    wins: int
    losses: int
    p: float | None  # two-sided; None if there is nothing but ties


def shares(outcomes: Sequence[int]) -> Shares:
    """Shares of 1, 0 and -1 among at least one outcome."""
    win, tie, loss = (sum(outcome == value for outcome in outcomes) / len(outcomes) for value in OUTCOMES)
    return Shares(win, tie, loss, win - loss)


def pigeonhole(
    raters: Sequence[int], prompts: Sequence[int], outcomes: Sequence[int], seed: int
) -> dict[str, tuple[float, float]] | None:
    """95 % intervals of win, tie, loss and delta, by Owen's pigeonhole bootstrap.

    Raters are drawn with replacement and, independently of that, prompts; a vote counts as often as its rater times as
    often as its prompt. So the interval speaks of other raters and other prompts, not only of other votes of the same.
    Resampled deviations are too small by sqrt((m - 1) / m) for m raters or prompts: the percentiles are moved outwards
    to make up for it.

    Args:
        raters: whose vote it is.
        prompts: what it is about: a subject and a prompt.
        outcomes: 1, 0 or -1.
        seed: of the draws.

    Returns:
        name of a share -> low and high; None with fewer than two raters or two prompts.

    Source: Owen (2007), The pigeonhole bootstrap, Annals of Applied Statistics 1(2).
    """
    who, which = (np.unique(list(ids), return_inverse=True)[1] for ids in (raters, prompts))
    size = (int(who.max()) + 1, int(which.max()) + 1)
    if min(size) < 2:
        return None
    draw = np.random.default_rng(seed)
    times_rater, times_prompt = (draw.multinomial(count, [1 / count] * count, DRAWS) for count in size)
    values, counts = np.asarray(outcomes), []
    for outcome in OUTCOMES:
        votes = np.zeros(size)
        np.add.at(votes, (who[values == outcome], which[values == outcome]), 1)
        counts.append(((times_rater @ votes) * times_prompt).sum(1))
    win, tie, loss = np.stack(counts)
    total = win + tie + loss
    drawn = total > 0  # where few votes are in, a draw may miss all of them
    win, tie, loss = (count[drawn] / total[drawn] for count in (win, tie, loss))
    tail = math.erfc(Z * math.sqrt(min(size) / (min(size) - 1) / 2)) / 2
    found = {"win": win, "tie": tie, "loss": loss, "delta": win - loss}
    return {name: tuple(np.quantile(each, (tail, 1 - tail)).tolist()) for name, each in found.items()}


def sign_test(wins: int, losses: int) -> Sign:
    """Whether wins and losses are equally likely; ties are left out. Exact binomial, two-sided.

    Source: Dixon and Mood (1946), The statistical sign test.
    """
    trials = wins + losses
    if not trials:
        return Sign(wins, losses, None)
    ways = tail = 1  # to get k losses, and to get at most k
    for k in range(min(wins, losses)):
        ways = ways * (trials - k) // (k + 1)
        tail += ways
    return Sign(wins, losses, min(1.0, 2 * tail / 2**trials))


def grouped_sign_test(groups: Sequence[int], outcomes: Sequence[int]) -> Sign:
    """Sign test over groups instead of votes: each group counts once, by the sign of its wins minus its losses.

    Groups, such as raters, are independent of each other where their votes are not.

    Args:
        groups: of each vote.
        outcomes: 1, 0 or -1.
    """
    sums: dict[int, int] = {}
    for group, outcome in zip(groups, outcomes, strict=True):
        sums[group] = sums.get(group, 0) + outcome
    return sign_test(sum(each > 0 for each in sums.values()), sum(each < 0 for each in sums.values()))
