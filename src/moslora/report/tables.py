"""Tables of a study's statistics: the form of the paper's Table 4, and the numbers behind it as rows for CSV files."""

from collections.abc import Mapping, Sequence
from typing import Any

from .colours import look
from .page import Cell, Table
from .texts import (
    MISSING,
    count,
    duration,
    fraction,
    p_value,
    percent,
    percent_interval,
    points,
    points_interval,
    rate,
    size,
)

SIGNIFICANT = 0.05

Arm = Mapping[str, Any]  # an entry of statistics.json's "arms"


def results_table(
    arms: Sequence[Arm], benchmarks: Sequence[str], baseline: str, base: Mapping[str, Any] | None, interval: str
) -> Table:
    """One row an arm: the answer first, then what the paper's Table 4 has, in the order of a reader on a phone.

    Args:
        arms: of one share of the training data.
        benchmarks: in the order of the columns.
        baseline: the method that the others are compared with.
        base: accuracies of the unadapted model, or None.
        interval: how the intervals were made.
    """
    alike = len({len(arm["seeds"]) for arm in arms}) == 1
    header = (
        "method",
        "average",
        f"minus {baseline}",
        "p (Holm)",
        *benchmarks,
        "learning rate",
        "parameters",
        "time",
        "memory",
        *([] if alike else ["seeds"]),
    )
    rows = [_base_row(base, benchmarks)] if base else []
    rows += [_row(arm, benchmarks) for arm in arms]
    if alike:
        rows = [row[:-1] for row in rows]
    seeds = f"{len(arms[0]['seeds'])} seeds" if alike else "seeds"
    share = fraction(arms[0]["train_fraction"])
    return Table(
        f"Accuracy on the test questions (%), mean over {seeds}, after training on {share} of the data; intervals "
        f"below the means: {interval}. Differences in percentage points. "
        f"Bold: p below {SIGNIFICANT} after Holm's correction. "
        "Time is the mean of the training, memory the peak.",
        header,
        rows,
        wide=True,
    )


def _row(arm: Arm, benchmarks: Sequence[str]) -> list[Cell]:
    average = arm["average"]
    means = [arm["benchmarks"].get(name, {}).get("mean") for name in benchmarks]
    return [
        Cell(arm["method"], colour=look(arm["method"]).colour),
        Cell(percent(average["mean"]), average["mean"], note=percent_interval(average["interval"])),
        *_difference(arm["against_baseline"]),
        *(Cell(percent(mean), mean) for mean in means),
        Cell(rate(arm["learning_rate"]), arm["learning_rate"]),
        Cell(count(arm["parameters"]), arm["parameters"]),
        Cell(duration(arm["seconds"]), arm["seconds"]),
        Cell(size(arm["peak_bytes"]), arm["peak_bytes"]),
        Cell(str(len(arm["seeds"])), len(arm["seeds"])),
    ]


def _difference(against: Mapping[str, Any] | None) -> list[Cell]:
    """To the baseline, and its p; two cells."""
    if not against:
        return [Cell(MISSING), Cell(MISSING)]
    p = against["p_holm"]
    strong = p is not None and p < SIGNIFICANT
    found = against["difference"]
    return [Cell(points(found), found, points_interval(against["interval"]), strong), Cell(p_value(p), p, "", strong)]


def _base_row(base: Mapping[str, Any], benchmarks: Sequence[str]) -> list[Cell]:
    found = [base["benchmarks"].get(name, {}).get("accuracy") for name in benchmarks]
    return [
        Cell("base model, not adapted"),
        Cell(percent(base["average"]), base["average"]),
        *[Cell(MISSING)] * 2,
        *(Cell(percent(accuracy), accuracy) for accuracy in found),
        Cell(MISSING),
        Cell("0", 0),
        *[Cell(MISSING)] * 3,
    ]


def comparisons_table(comparisons: Sequence[Mapping[str, Any]], caption: str) -> Table:
    """Differences between pairs of arms, with interval and p."""
    rows = [
        [
            Cell(each["method"], colour=look(each["method"]).colour),
            Cell(each["against"]),
            Cell(points(each.get("difference")), each.get("difference")),
            Cell(points_interval(each.get("interval"))),
            Cell(p_value(each.get("p")), each.get("p")),
            Cell(p_value(each.get("p_holm")), each.get("p_holm")),
        ]
        for each in comparisons
    ]
    return Table(caption, ("method", "against", "difference (points)", "95 % interval", "p", "p (Holm)"), rows)


def seeds_table(arms: Sequence[Arm], baseline: str) -> Table | None:
    """How many seeds a difference as found would need; None if no arm says."""
    rows = []
    for arm in arms:
        against = arm["against_baseline"] or {}
        if "seeds_needed" in against:
            needed = against["seeds_needed"]
            difference = against["difference"]
            row = [Cell(points(difference), difference), Cell(str(len(arm["seeds"]))), Cell(count(needed), needed)]
            rows.append([Cell(arm["method"], colour=look(arm["method"]).colour), *row])
    header = ("method", f"minus {baseline} (points)", "seeds here", "seeds needed")
    caption = "Seeds that would show a difference as large as the one found, with 80 % power at the 5 % level."
    return Table(caption, header, rows) if rows else None


def result_rows(arms: Sequence[Arm], benchmarks: Sequence[str]) -> list[dict[str, Any]]:
    """One row an arm, all numbers unrounded, shares in [0, 1], empty where there is none."""
    rows = []
    for arm in arms:
        average, against = arm["average"], arm["against_baseline"] or {}
        row = {key: arm[key] for key in ("method", "train_fraction", "learning_rate")}
        row |= {"seeds": len(arm["seeds"]), **{key: arm[key] for key in ("parameters", "seconds", "peak_bytes")}}
        for name in benchmarks:
            found = arm["benchmarks"].get(name, {})
            row |= {name: found.get("mean"), **_ends(f"{name}_", found.get("interval"))}
        row |= {"average": average["mean"], **_ends("average_", average["interval"])}
        row |= {"difference": against.get("difference"), **_ends("difference_", against.get("interval"))}
        row |= {key: against.get(key) for key in ("p", "p_holm", "seeds_needed")}
        rows.append(row)
    return rows


def accuracy_rows(arms: Sequence[Arm]) -> list[dict[str, Any]]:
    """One row an arm, benchmark and seed."""
    rows = []
    for arm in arms:
        for name, found in arm["benchmarks"].items():
            for seed, accuracy in zip(arm["seeds"], found["accuracies"], strict=True):
                row = {key: arm[key] for key in ("method", "train_fraction", "learning_rate")}
                rows.append({**row, "seed": seed, "benchmark": name, "accuracy": accuracy})
    return rows


def sweep_rows(sweep: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """One row an arm, learning rate and seed: average accuracy on validation and on test."""
    rows = []
    for entry in sweep:
        kinds = {kind: (entry.get(kind) or {}).get("accuracies") or [] for kind in ("validation", "test")}
        for place, seed in enumerate(entry["seeds"]):
            row = {key: entry[key] for key in ("method", "train_fraction", "learning_rate")}
            found = {kind: each[place] if place < len(each) else None for kind, each in kinds.items()}
            rows.append({**row, "seed": seed, **found})
    return rows


def settings_table(values: Mapping[str, Any], caption: str) -> Table:
    """Names and values as they are; a mapping inside is a row for each of its values."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= {f"{name}: {key}": each for key, each in value.items()} if isinstance(value, Mapping) else {name: value}
    rows = [[Cell(name), Cell(_plain(value))] for name, value in flat.items()]
    return Table(caption, ("setting", "value"), rows, text=True)


def _plain(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_plain, value))
    return MISSING if value is None else str(value)


def _ends(prefix: str, interval: Sequence[float] | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{prefix}low": low, f"{prefix}high": high}
