"""Runs against the first run of the same subject, paired by prompt and seed. numpy alone."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from .bootstrap import Estimate, bootstrap
from .scores import METHOD, Measured

NAMES = {"dino": "DINO", "dinov2": "DINOv2", "clip-i": "CLIP-I", "clip-t": "CLIP-T", "lpips": "LPIPS diversity"}
CAVEAT = "One training run a method: another training seed may turn it round."


class _Difference(NamedTuple):
    """One metric of one run minus that of another."""

    estimate: Estimate
    pairs: int
    prompts: int


def compare(measured: Sequence[Measured], resamples: int, seed: int) -> list[dict[str, Any]]:
    """Differences in every metric that both runs have.

    Args:
        measured: the runs; each is compared with the first that has the same photographs.
        resamples: draws of each interval.
        seed: of the draws.

    Returns:
        rows of `metric`, `subject`, `run`, `method`, `against` (a run), `against_method`, `difference`, `interval`,
        `interval_method`, `pairs`, `prompts` and `sentence`. Where two methods meet on several subjects, a row more has
        the mean over the subjects, with `run` and `against` None.
    """
    rows: list[dict[str, Any]] = []
    meetings: dict[tuple[str, str, str], list[_Difference]] = {}
    firsts: dict[frozenset[str], Measured] = {}
    for each in measured:
        photographs = frozenset(photograph.sha256 for photograph in each.subject.photographs)
        first = firsts.setdefault(photographs, each)
        if first is each:
            continue
        for metric, found in _differences(each, first, resamples, seed).items():
            names = _names(each, first)
            meetings.setdefault((metric, *names), []).append(found)
            place = {
                "subject": each.subject.name,
                "run": str(each.subject.folder),
                "against": str(first.subject.folder),
            }
            rows.append(place | _row(metric, *names, found, resamples))
    for (metric, method, against), several in meetings.items():
        if len(several) > 1:
            row = _row(metric, method, against, _mean(several), resamples)
            rows.append({"subject": f"mean of {len(several)} subjects", "run": None, "against": None, **row})
    return rows


def _names(ours: Measured, theirs: Measured) -> tuple[str, str]:
    """What to call them: the method, and the folder too where the method is the same."""
    subjects = (ours.subject, theirs.subject)
    if subjects[0].method != subjects[1].method:
        return subjects[0].method, subjects[1].method
    first, second = (f"{subject.method} ({subject.folder.name})" for subject in subjects)
    return first, second


def _differences(ours: Measured, theirs: Measured, resamples: int, seed: int) -> dict[str, _Difference]:
    found = {}
    for metric in ours.values.keys() & theirs.values.keys():
        prompts = _paired(_by_pair(ours, metric), _by_pair(theirs, metric))
        if prompts:
            estimate = bootstrap(prompts, resamples, seed)
            found[metric] = _Difference(estimate, sum(map(len, prompts)), len(prompts))
    diversity = _paired(_diversity(ours), _diversity(theirs))
    if diversity:
        estimate = bootstrap(diversity, resamples, seed, within=False)
        found["lpips"] = _Difference(estimate, sum(map(len, diversity)), len(diversity))
    return {metric: found[metric] for metric in NAMES if metric in found}


def _by_pair(measured: Measured, metric: str) -> dict[tuple[str, Any], np.ndarray]:
    """(prompt, seed) -> cosines with the photographs, in the order of their hashes."""
    values = measured.values[metric]
    if values.shape[1] > 1:
        order = np.argsort([photograph.sha256 for photograph in measured.subject.photographs])
        values = values[:, order]
    return {(each.prompt, each.seed): row for each, row in zip(measured.subject.pictures, values, strict=True)}


def _diversity(measured: Measured) -> dict[tuple[str, Any], np.ndarray]:
    """(prompt, two seeds) -> their LPIPS."""
    pictures = {picture.file: picture for picture in measured.subject.pictures}
    found = {}
    for (first, second), distance in measured.distances.items():
        seeds = (pictures[first].seed, pictures[second].seed)
        found[pictures[first].prompt, seeds] = np.array([distance])
    return found


def _paired(ours: Mapping[tuple[str, Any], Any], theirs: Mapping[tuple[str, Any], Any]) -> list[np.ndarray]:
    """Differences of what both have, for each prompt (pictures, photographs)."""
    prompts: dict[str, list[np.ndarray]] = {}
    for key, value in ours.items():
        if key in theirs:
            prompts.setdefault(key[0], []).append(value - theirs[key])
    return [np.stack(each) for each in prompts.values()]


def _mean(several: Sequence[_Difference]) -> _Difference:
    """The mean over subjects, which are not drawn: draw by draw, so that a prompt is drawn for all of them."""
    draws = [each.estimate.draws for each in several]
    known = [each for each in draws if each is not None]
    mean = float(np.mean([each.estimate.mean for each in several]))
    estimate = Estimate(mean, np.mean(known, axis=0) if len(known) == len(draws) else None)
    return _Difference(estimate, sum(each.pairs for each in several), sum(each.prompts for each in several))


def _row(metric: str, method: str, against: str, found: _Difference, resamples: int) -> dict[str, Any]:
    interval = found.estimate.interval
    over = "prompts" if metric == "lpips" else "prompts, seeds" + ("" if metric == "clip-t" else ", photographs")
    row = {
        "metric": metric,
        "method": method,
        "against_method": against,
        "difference": found.estimate.mean,
        "interval": list(interval) if interval else None,
        "interval_method": f"paired, {METHOD.format(resamples=resamples, over=over)}" if interval else None,
        "pairs": found.pairs,
        "prompts": found.prompts,
    }
    return row | {"sentence": sentence(row)}


def sentence(row: Mapping[str, Any]) -> str:
    """What a row says, and what it does not."""
    what = f"{NAMES[row['metric']]}: {row['method']} minus {row['against_method']} is {row['difference']:+.4f}"
    if row["interval"] is None:
        return f"{what} ({row['pairs']} pair). Too few pictures for an interval, so this shows nothing."
    low, high = row["interval"]
    what += f" (95 % interval {low:+.4f} to {high:+.4f}; {row['pairs']} pairs, {row['prompts']} prompts)"
    if low <= 0 <= high:
        return f"{what}: no difference found."
    return f"{what}: {'higher' if low > 0 else 'lower'} on these prompts and seeds. {CAVEAT}"
