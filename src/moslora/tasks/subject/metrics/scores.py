"""From vectors and distances to rows and means: DreamBooth's protocol. numpy alone.

Source: arXiv:2208.12242, section 4: the mean cosine similarity over all pairs of a real and a generated picture (DINO,
CLIP-I), or over pictures and their prompts (CLIP-T). The mean LPIPS between pictures of one prompt is their diversity.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .bootstrap import Estimate, bootstrap
from .pictures import Picture, Subject

# A metric's values: (pictures, photographs) of cosines, or one column.
Values = Mapping[str, np.ndarray]
WITH_PHOTOGRAPHS = ("dino", "dinov2", "clip-i")
METHOD = "95 % percentile bootstrap, {resamples} draws over {over}"


class Measured(NamedTuple):
    """What one run's pictures gave."""

    subject: Subject
    values: dict[str, np.ndarray]  # metric -> (pictures, photographs), or (pictures, 1)
    distances: dict[tuple[str, str], float]  # LPIPS of two files
    models: dict[str, dict[str, Any]]  # metric -> model and its processing
    left_out: dict[str, str]  # metric -> why


def cosines(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(n, m) cosines between the rows of (n, d) and (m, d)."""
    units = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (first, second)]
    return units[0] @ units[1].T


def by_prompt(pictures: Sequence[Picture], values: np.ndarray) -> dict[int, np.ndarray]:
    """Prompt index -> the rows of its pictures."""
    indices = np.array([picture.prompt_index for picture in pictures])
    return {int(index): values[indices == index] for index in dict.fromkeys(indices)}


def summarize(pictures: Sequence[Picture], values: Values, resamples: int, seed: int) -> dict[str, Any]:
    """`metrics` (name -> mean and interval) and `prompts` (the same for each prompt alone).

    Args:
        pictures: of one run, in the order of the rows of `values`.
        values: metric -> (pictures, photographs), or (pictures, 1) for CLIP-T.
        resamples: draws of each interval.
        seed: of the draws.
    """
    groups = {name: by_prompt(pictures, each) for name, each in values.items()}
    metrics = {
        name: _entry(bootstrap(list(each.values()), resamples, seed), _over(name, True), resamples)
        | {"pictures": len(pictures), "photographs": values[name].shape[1] if name in WITH_PHOTOGRAPHS else None}
        for name, each in groups.items()
    }
    prompts = []
    for index, first in {picture.prompt_index: picture for picture in reversed(pictures)}.items():
        found = {
            name: _entry(bootstrap([each[index]], resamples, seed), _over(name, False), resamples)
            for name, each in groups.items()
        }
        count = sum(picture.prompt_index == index for picture in pictures)
        prompts.append(
            {"prompt_index": index, "prompt": first.prompt, "text": first.text, "pictures": count, "metrics": found}
        )
    return {"metrics": metrics, "prompts": sorted(prompts, key=lambda row: row["prompt_index"])}


def summarize_diversity(distances: Mapping[int, Sequence[float]], resamples: int, seed: int) -> dict[str, Any]:
    """The entry of LPIPS: mean over all pairs of pictures of one prompt.

    Only prompts are drawn for the interval: a picture drawn twice would have the distance 0 from itself.

    Args:
        distances: prompt index -> distances of its pairs.
        resamples: draws of the interval.
        seed: of the draws.
    """
    values = [np.array(each)[:, None] for each in distances.values() if each]
    entry = _entry(bootstrap(values, resamples, seed, within=False), "prompts", resamples)
    return entry | {"pairs": sum(map(len, values))}


def picture_rows(pictures: Sequence[Picture], values: Values) -> list[dict[str, Any]]:
    """One row a picture: each metric's mean over the photographs."""
    rows = []
    for place, picture in enumerate(pictures):
        row = {key: getattr(picture, key) for key in ("file", "prompt_index", "prompt", "text", "seed")}
        rows.append(row | {name: float(each[place].mean()) for name, each in values.items()})
    return rows


def pair_rows(pictures: Sequence[Picture], photographs: Sequence[str], values: Values) -> list[dict[str, Any]]:
    """One row a pair of a generated picture and a photograph (given by their names)."""
    named = {name: each for name, each in values.items() if name in WITH_PHOTOGRAPHS}
    return [
        {"file": picture.file, "photograph": photograph, "prompt_index": picture.prompt_index, "seed": picture.seed}
        | {name: float(each[row, column]) for name, each in named.items()}
        for row, picture in enumerate(pictures)
        for column, photograph in enumerate(photographs)
        if named
    ]


def _entry(estimate: Estimate, over: str, resamples: int) -> dict[str, Any]:
    interval = estimate.interval
    return {
        "mean": estimate.mean,
        "interval": list(interval) if interval else None,
        "interval_method": METHOD.format(resamples=resamples, over=over) if interval else None,
    }


def _over(name: str, prompts: bool) -> str:
    parts = [*(["prompts"] if prompts else []), "seeds", *(["photographs"] if name in WITH_PHOTOGRAPHS else [])]
    return ", ".join(parts)
