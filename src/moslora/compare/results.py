"""From the finished run folders of a study to statistics.json. Reads files only."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import runs
from ..errors import RunError
from .conclusions import conclude, initialisation_sentence
from .statistics import Difference, compare_pairs, holm, mean_interval
from .study import VALIDATION, base_is_finished, is_finished, validation_names

INTERVAL = "Student t over seeds, 95 %"
TEST = "paired t over seeds, two-sided, Holm over the arms of one train_fraction"
BY_ACCURACY = "highest mean validation accuracy"
BY_LOSS = "lowest mean validation loss"
# What moslora must beat for its gain to be more than an initialisation: the same start without a mixer that learns.
INITIALISATION = ("moslora-folded", "moslora-frozen", "lora-scaled")


class Result(NamedTuple):
    """One finished cell. Accuracies in [0, 1]; `validation` is higher for better: an accuracy, or a loss times -1."""

    method: str
    learning_rate: float
    seed: int
    train_fraction: float
    parameters: int
    seconds: float
    peak_bytes: int | None
    benchmarks: dict[str, float]
    validation: float | None

    @property
    def average(self) -> float:
        """Unweighted mean over the benchmarks."""
        return math.fsum(self.benchmarks.values()) / len(self.benchmarks)


class Arm(NamedTuple):
    """One method on one share of the data, at each learning rate that has results."""

    method: str
    train_fraction: float
    by_rate: dict[float, list[Result]]

    def chosen(self) -> float:
        """The learning rate with the best mean validation, among those with the most finished seeds.

        A rate at which some seeds failed is no candidate while another has them all. Of equals, the lowest.

        Raises:
            RunError: there is a choice and nothing to choose on.
        """
        most = max(map(len, self.by_rate.values()))
        candidates = sorted(rate for rate, results in self.by_rate.items() if len(results) == most)
        if len(candidates) == 1:
            return candidates[0]
        means = {rate: _mean(result.validation for result in self.by_rate[rate]) for rate in candidates}
        if any(mean is None for mean in means.values()):
            raise RunError(
                f"The learning rate of {self.method} cannot be chosen: cells have no validation accuracy or loss. Held-"
                "out questions need items with an `answer`; a validation loss needs more steps than save_steps."
            )
        return max(candidates, key=lambda rate: (means[rate], -rate))


def write_statistics(folder: Path) -> dict[str, Any]:
    """Compute statistics.json from all finished cells, and write it.

    Args:
        folder: of the study; see docs/comparison.md for the content of the file.

    Raises:
        RunError: no cell is finished, or no learning rate can be chosen.
        DataError: a file of the study cannot be read.
    """
    record = runs.read_json(folder / "study.json")
    by_accuracy = bool(validation_names(folder))
    results = [
        _result(folder, cell, record["benchmarks"], by_accuracy)
        for cell in record["cells"]
        if is_finished(folder, record, cell["name"])
    ]
    if not results:
        raise RunError(f"No cell of {folder} is finished, so there is nothing to compare.")
    statistics = compute(results, record["baseline"], record["benchmarks"], by_accuracy)
    statistics["base"] = _base(folder, record)
    statistics["failed"] = _failed(folder, record)
    statistics["conclusions"] = conclude(statistics)
    if missing := len(record["cells"]) - len(results) - sum(each["cell"] != "base" for each in statistics["failed"]):
        statistics["conclusions"].append(f"The study is not complete: {missing} of its cells have not ended.")
    runs.write_json(folder / "statistics.json", statistics)
    return statistics


def compute(results: Sequence[Result], baseline: str, benchmarks: Sequence[str], by_accuracy: bool) -> dict[str, Any]:
    """The parts of statistics.json that follow from the cells.

    Args:
        results: finished cells.
        baseline: a method; others are compared with it on the same share of the data.
        benchmarks: names, in the order of the tables.
        by_accuracy: whether `validation` is an accuracy, else it is a loss times -1.
    """
    arms = list(_arms(results))
    chosen = {(arm.method, arm.train_fraction): arm.by_rate[arm.chosen()] for arm in arms}
    rows = [_arm_row(chosen[arm.method, arm.train_fraction], benchmarks, by_accuracy) for arm in arms]
    for share in dict.fromkeys(arm.train_fraction for arm in arms):
        of_share = [row for row in rows if row["train_fraction"] == share and row["method"] != baseline]
        against = [
            _compare(chosen[row["method"], share], chosen[baseline, share]) if (baseline, share) in chosen else None
            for row in of_share
        ]
        for row, each in zip(of_share, _corrected(against), strict=True):
            row["against_baseline"] = each
    sweep = [
        {
            "method": arm.method,
            "train_fraction": arm.train_fraction,
            "learning_rate": rate,
            "seeds": [result.seed for result in arm.by_rate[rate]],
            "validation": _validation(arm.by_rate[rate], by_accuracy),
            "test": _plain([result.average for result in arm.by_rate[rate]]),
        }
        for arm in arms
        for rate in sorted(arm.by_rate)
    ]
    return {
        "baseline": baseline,
        "interval": INTERVAL,
        "test": TEST,
        "selection": BY_ACCURACY if by_accuracy else BY_LOSS,
        "arms": rows,
        "sweep": sweep,
        "initialisation": [entry for share in _shares(arms) if (entry := _initialisation(chosen, share))],
    }


def latest_progress(folder: Path) -> dict[str, dict[str, Any]]:
    """Cell -> its last row of progress.jsonl: how it ended and how long it took."""
    return {row["cell"]: row for row in runs.read_rows(folder / "progress.jsonl")}


def _result(folder: Path, cell: Mapping[str, Any], benchmarks: Sequence[str], by_accuracy: bool) -> Result:
    run = folder / "cells" / cell["name"]
    record = runs.read_json(run / "run.json")
    scores = runs.read_json(run / "eval" / "scores.json")["benchmarks"]
    peak = record["peak_memory"]
    return Result(
        cell["method"],
        cell["learning_rate"],
        cell["seed"],
        cell["train_fraction"],
        record["parameters"]["trainable"],
        record["seconds"],
        # A process's memory says little about a cell: it holds the libraries, and what other cells left.
        peak["bytes"] if peak["of"] == "cuda" else None,
        {name: scores[name]["accuracy"] for name in benchmarks},
        _validation_accuracy(run) if by_accuracy else _validation_loss(run),
    )


def _validation_accuracy(run: Path) -> float:
    """Share of right answers over all held-out questions."""
    groups = runs.read_json(run / VALIDATION / "scores.json")["benchmarks"].values()
    return sum(group["correct"] for group in groups) / sum(group["n"] for group in groups)


def _validation_loss(run: Path) -> float | None:
    losses = [row["validation_loss"] for row in runs.read_rows(run / "metrics.jsonl") if "validation_loss" in row]
    return -losses[-1] if losses else None


def _arms(results: Iterable[Result]) -> Iterable[Arm]:
    arms: dict[tuple[str, float], Arm] = {}
    for result in results:
        key = (result.method, result.train_fraction)
        arm = arms.setdefault(key, Arm(*key, {}))
        arm.by_rate.setdefault(result.learning_rate, []).append(result)
    for arm in arms.values():
        for each in arm.by_rate.values():
            each.sort(key=lambda result: result.seed)
    return arms.values()


def _shares(arms: Sequence[Arm]) -> list[float]:
    return sorted({arm.train_fraction for arm in arms}, reverse=True)


def _arm_row(results: list[Result], benchmarks: Sequence[str], by_accuracy: bool) -> dict[str, Any]:
    first = results[0]
    return {
        "method": first.method,
        "train_fraction": first.train_fraction,
        "learning_rate": first.learning_rate,
        "seeds": [result.seed for result in results],
        "parameters": first.parameters,
        "seconds": _mean(result.seconds for result in results),
        "peak_bytes": _mean(result.peak_bytes for result in results),
        "benchmarks": {name: _with_interval([result.benchmarks[name] for result in results]) for name in benchmarks},
        "average": _with_interval([result.average for result in results]),
        "validation": _validation(results, by_accuracy),
        "against_baseline": None,
    }


def _compare(ours: list[Result], theirs: list[Result]) -> Difference | None:
    """Of the averages over the benchmarks."""
    return compare_pairs(*({result.seed: result.average for result in each} for each in (ours, theirs)))


def _corrected(differences: Sequence[Difference | None]) -> list[dict[str, Any] | None]:
    """As JSON values, with Holm's correction over all of them."""
    corrected = holm([each.p if each else None for each in differences])
    return [
        {**each._asdict(), "interval": _list(each.interval), "p_holm": p} if each else None
        for each, p in zip(differences, corrected, strict=True)
    ]


def _initialisation(chosen: Mapping[tuple[str, float], list[Result]], share: float) -> dict[str, Any] | None:
    """Whether more than the initialisation is at work; None unless all five arms are there."""
    if any((method, share) not in chosen for method in ("lora", "moslora", *INITIALISATION)):
        return None
    moslora = chosen["moslora", share]
    gain = _corrected([_compare(moslora, chosen["lora", share])])[0]
    corrected = _corrected([_compare(moslora, chosen[method, share]) for method in INITIALISATION])
    comparisons = [
        {"method": "moslora", "against": method, **each}
        for method, each in zip(INITIALISATION, corrected, strict=True)
        if each is not None
    ]
    entry = {"train_fraction": share, "moslora_against_lora": gain, "comparisons": comparisons}
    return {**entry, "conclusion": initialisation_sentence(entry)}


def _base(folder: Path, record: Mapping[str, Any]) -> dict[str, Any] | None:
    if not base_is_finished(folder, record):
        return None
    scores = runs.read_json(folder / "base" / "eval-base" / "scores.json")["benchmarks"]
    benchmarks = {name: {key: scores[name][key] for key in ("accuracy", "interval")} for name in record["benchmarks"]}
    return {"benchmarks": benchmarks, "average": _mean(each["accuracy"] for each in benchmarks.values())}


def _failed(folder: Path, record: Mapping[str, Any]) -> list[dict[str, str]]:
    """Cells whose last attempt failed."""
    names = ["base", *(cell["name"] for cell in record["cells"])]
    latest = latest_progress(folder)
    return [
        {"cell": name, "error": latest[name]["error"]}
        for name in names
        if name in latest and latest[name]["status"] == "failed"
    ]


def _validation(results: Sequence[Result], by_accuracy: bool) -> dict[str, Any]:
    values = [result.validation for result in results]
    known = [value for value in values if value is not None]
    if by_accuracy:
        return _plain(known)
    losses = [-value for value in known]
    return {"accuracies": [], "mean": None, "losses": losses, "mean_loss": _mean(losses)}


def _plain(values: list[float]) -> dict[str, Any]:
    return {"accuracies": values, "mean": _mean(values)}


def _with_interval(values: list[float]) -> dict[str, Any]:
    mean, interval = mean_interval(values)
    return {"accuracies": values, "mean": mean, "interval": _list(interval)}


def _mean(values: Iterable[float | None]) -> float | None:
    """None if a value is None, or there are none."""
    each = list(values)
    return None if None in each or not each else math.fsum(value for value in each if value is not None) / len(each)


def _list(interval: tuple[float, float] | None) -> list[float] | None:
    return None if interval is None else list(interval)
