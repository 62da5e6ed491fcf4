"""What the paper printed, beside what a study found: read from published.toml, shown in tables of its own."""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .page import Cell, Section, Table
from .texts import MISSING, percent, percent_interval, points, points_interval


def read_published() -> dict[str, Any]:
    """Content of published.toml; accuracies in percent, as printed."""
    return tomllib.loads((Path(__file__).parent / "published.toml").read_text(encoding="utf-8"))


def same_benchmarks(benchmarks: Sequence[str]) -> bool:
    """Whether every benchmark of a study is one of the paper's eight, by name."""
    return bool(benchmarks) and set(benchmarks) <= set(read_published()["names"])


def published_section(statistics: Mapping[str, Any], benchmarks: Sequence[str], model: str) -> Section:
    """The paper's Tables 1, 3 and 4, and its averages beside a study's.

    Args:
        statistics: content of statistics.json.
        benchmarks: of the study.
        model: that the study adapted.
    """
    published = read_published()
    theirs = f"paper, {published['model']}"
    whole = set(benchmarks) == set(published["names"])
    return Section(
        f"Published numbers ({theirs})",
        [
            f"Every number of this section that is marked “{theirs}” was copied from the paper "
            f"({published['source']}). They are single runs on another model and other hardware than this study "
            f"({model}), so no accuracy of one can be compared with one of the other. At most the differences "
            "between methods can be held side by side."
            + ("" if whole else " This study does not ask the same eight benchmarks either."),
            _beside(published, statistics, theirs),
            _table(published, "table4", f"Table 4 of the {theirs}: accuracy (%). One run each.", costs=True),
            _table(published, "table1", f"Table 1 of the {theirs}: accuracy (%). One run each."),
            _inits(published, theirs),
        ],
    )


def _beside(published: Mapping[str, Any], statistics: Mapping[str, Any], theirs: str) -> Table:
    largest = max((arm["train_fraction"] for arm in statistics["arms"]), default=1.0)
    arms = {arm["method"]: arm for arm in statistics["arms"] if arm["train_fraction"] == largest}
    printed_rows = (row for name in ("table1", "table3", "table4") for row in published[name] if "method" in row)
    rows = {row["method"]: row for row in printed_rows}
    lora = rows["lora"]["average"]
    lines = []
    for method in (method for method in arms if method in rows):
        row, average, against = rows[method], arms[method]["average"], arms[method]["against_baseline"] or {}
        printed = row.get("average")
        lines.append(
            [
                Cell(method),
                Cell(row.get("outcome", "") if printed is None else f"{printed:.1f}"),
                Cell(MISSING if printed is None or method == "lora" else points((printed - lora) / 100)),
                Cell(percent(average["mean"]), average["mean"]),
                Cell(percent_interval(average["interval"])),
                Cell(points(against.get("difference")), against.get("difference")),
                Cell(points_interval(against.get("interval"))),
            ]
        )
    baseline = statistics["baseline"]
    header = (
        "method",
        f"average, {theirs}",
        f"minus LoRA, {theirs}",
        "average, this study",
        "95 % interval, this study",
        f"minus {baseline}, this study",
        "95 % interval of that",
    )
    return Table(
        f"The methods that both have. Columns marked “{theirs}” are the paper's; the others are this study's, on its "
        "own model and benchmarks. Differences in percentage points.",
        header,
        lines,
    )


def _table(published: Mapping[str, Any], name: str, caption: str, costs: bool = False) -> Table:
    keys = ("parameters", "time", "memory") if costs else ()
    header = ("method", *keys, *published["benchmarks"], "Avg.")
    rows = [
        [
            Cell(row["label"]),
            *(Cell(row[key]) for key in keys),
            *(Cell(f"{accuracy:.1f}") for accuracy in (*row["accuracies"], row["average"])),
        ]
        for row in published[name]
    ]
    return Table(caption, header, rows)


def _inits(published: Mapping[str, Any], theirs: str) -> Table:
    rows = [
        [Cell(row["label"]), Cell(f"{row['average']:.1f}" if "average" in row else row["outcome"])]
        for row in published["table3"]
    ]
    return Table(f"Table 3 of the {theirs}: average accuracy (%) by the mixer's initialisation. One run each.",
                 ("initialisation of the mixer", "Avg."), rows)  # fmt: skip
