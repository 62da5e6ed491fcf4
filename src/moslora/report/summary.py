"""What finished runs say, as rows of a table. Reads run folders only."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import runs


class Summary(NamedTuple):
    """One row: a run, or the base model it started from."""

    label: str
    parameters: int  # trained
    seconds: float | None  # of training
    loss: float | None  # the last one logged
    benchmarks: dict[str, dict[str, Any]]  # name -> accuracy and its 95 % interval
    mean: float | None  # of the accuracies


def summarize(folder: Path, label: str | None = None) -> Summary:
    """Summary of a finished run, without accuracies if it was not evaluated yet.

    Args:
        folder: of the run.
        label: its name; the method's by default.

    Raises:
        RunError: the run is not finished.
    """
    record = runs.finished_record(folder)
    path = folder / "eval" / "scores.json"
    scores = _accuracies(runs.read_json(path) if path.exists() else {})
    return Summary(
        label or record["config"]["method"],
        record["parameters"]["trainable"],
        record["seconds"],
        record["final_loss"],
        scores["benchmarks"],
        scores["mean"],
    )


def summarize_base(folder: Path, label: str = "base model") -> Summary:
    """Summary of the base model of a run, as `moslora eval --base-only` measured it.

    Raises:
        DataError: it has not been measured.
    """
    scores = _accuracies(runs.read_json(folder / "eval-base" / "scores.json"))
    return Summary(label, 0, None, None, scores["benchmarks"], scores["mean"])


def table(summaries: Sequence[Summary]) -> list[list[str]]:
    """Header and one row of texts per summary; accuracies in percent."""
    names = list(dict.fromkeys(name for summary in summaries for name in summary.benchmarks))
    rows = [["method", "trained parameters", "seconds", "loss", *names, *(["mean"] if len(names) > 1 else [])]]
    for summary in summaries:
        accuracies = [summary.benchmarks[name]["accuracy"] if name in summary.benchmarks else None for name in names]
        if len(names) > 1:
            accuracies.append(summary.mean)
        rows.append(
            [
                summary.label,
                f"{summary.parameters:,}",
                _text(summary.seconds, ".1f"),
                _text(summary.loss, ".3f"),
                *(_text(accuracy, ".1%") for accuracy in accuracies),
            ]
        )
    return rows


def markdown(rows: Iterable[Sequence[str]], numbers: bool = True) -> str:
    """Header and rows as a Markdown table; all but the first column are numbers, unless told otherwise."""
    header, *body = rows
    rule = [":--", *(["--:" if numbers else ":--"] * (len(header) - 1))]
    return "".join(f"| {' | '.join(row)} |\n" for row in (header, rule, *body))


def _accuracies(scores: dict[str, Any]) -> dict[str, Any]:
    """Content of scores.json if it holds accuracies; scores that name their task have tables of their own."""
    return {"benchmarks": {}, "mean": None} if not scores or "task" in scores else scores


def _text(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)
