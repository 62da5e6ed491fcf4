"""Means over prompts, seeds and photographs, and the percentile bootstrap of them. numpy alone."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from .... import runs

LEVEL = 0.95


class Estimate(NamedTuple):
    """A mean and the draws of its bootstrap; no draws where there is nothing to resample."""

    mean: float
    draws: np.ndarray | None  # (resamples,)

    @property
    def interval(self) -> tuple[float, float] | None:
        """95 % percentile interval."""
        if self.draws is None:
            return None
        low, high = np.quantile(self.draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return float(low), float(high)


def bootstrap(values: Sequence[np.ndarray], resamples: int, seed: int, *, within: bool = True) -> Estimate:
    """Mean of all values, with draws over prompts, over the seeds within each drawn prompt, and over photographs.

    Prompts and photographs are crossed: one draw of photographs holds for all prompts of a resample.

    Args:
        values: for each prompt (pictures, photographs); one column where nothing is compared with photographs.
        resamples: number of draws.
        seed: of the draws.
        within: whether the pictures of a prompt are drawn too.

    Returns:
        the mean, and draws of it, unless there is one prompt, one picture (or `within` is false) and one photograph.
    """
    counts = np.array([len(each) for each in values])
    padded = np.zeros((len(values), counts.max(), values[0].shape[1]))
    for place, each in zip(padded, values, strict=True):
        place[: len(each)] = each
    mean = float(padded.sum() / (counts.sum() * padded.shape[2]))
    if len(values) == 1 and (counts[0] == 1 or not within) and padded.shape[2] == 1:
        return Estimate(mean, None)
    random = np.random.default_rng(runs.stream_seed(seed, "bootstrap"))
    prompts = random.integers(len(values), size=(resamples, len(values)))
    photographs = padded.shape[2]
    shares = random.multinomial(photographs, [1 / photographs] * photographs, size=resamples) / photographs
    drawn = counts[prompts]  # (resamples, prompts)
    place = np.arange(padded.shape[1])
    if within:
        pictures = (random.random((*prompts.shape, len(place))) * drawn[..., None]).astype(int)
    else:
        pictures = np.broadcast_to(place, (*prompts.shape, len(place)))
    draws = np.empty(resamples)
    for number in range(resamples):
        compared = padded @ shares[number]  # (prompts, pictures)
        chosen = compared[prompts[number][:, None], pictures[number]]
        draws[number] = chosen[place < drawn[number][:, None]].sum() / drawn[number].sum()
    return Estimate(mean, draws)
