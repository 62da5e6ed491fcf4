"""What a rater sees, drawn from the study's seed and the rater's number: order, sides, which question comes first."""

import itertools
import random
from typing import NamedTuple

from .... import runs
from .questions import KEYS


class Step(NamedTuple):
    """One pair of pictures in a rater's sequence."""

    item: int
    b_left: bool  # B, the second run of the pair, is on the left


class Plan(NamedTuple):
    """The whole sequence of one rater."""

    steps: list[Step]
    questions: tuple[str, ...]  # keys, in the order in which this rater is asked


def draw_plan(seed: int, rater: int, pairs: list[int], checks: list[int]) -> Plan:
    """The sequence of one rater; the same for the same arguments.

    B is on the left in half of the pairs, so that a liking for one side favours neither method. Attention checks are
    spread over the sequence, one in each of as many equal parts, at a random place, never as the very first pair.

    Args:
        seed: of the study.
        rater: number of the rater.
        pairs: items that compare the two methods.
        checks: items that test attention.
    """
    draw = random.Random(runs.stream_seed(seed, f"rater/{rater}"))
    order = draw.sample(pairs, len(pairs))
    places = _spread(draw, len(order), len(checks))
    sequence: list[int] = []
    waiting = draw.sample(checks, len(checks))
    for place, item in enumerate(order):
        sequence.append(item)
        sequence += [waiting.pop() for after in places if after == place]
    sequence += waiting
    sides = {item: left for group in (pairs, checks) for item, left in _halves(draw, group).items()}
    questions = tuple(draw.sample(KEYS, len(KEYS)))
    return Plan([Step(item, sides[item]) for item in sequence], questions)


def _spread(draw: random.Random, pairs: int, checks: int) -> list[int]:
    """After which of the pairs, counted from 0, each check comes."""
    bounds = [round(part * pairs / checks) for part in range(checks + 1)] if checks else []
    return [draw.randrange(low, max(low + 1, high)) for low, high in itertools.pairwise(bounds)]


def _halves(draw: random.Random, items: list[int]) -> dict[int, bool]:
    """Half of the items True, half False, at random; of an odd number, the last by chance."""
    values = [True, False] * (len(items) // 2) + [draw.random() < 0.5] * (len(items) % 2)
    draw.shuffle(values)
    return dict(zip(items, values, strict=True))
