"""From the answers in a folder to scores.json and unparsed.md. Pure Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ... import runs
from .score import score

EXAMPLES = 5  # outputs of each benchmark that unparsed.md shows


def predictions_file(folder: Path, name: str) -> Path:
    """Where the answers to a benchmark lie."""
    return folder / "predictions" / f"{name}.jsonl"


def write_scores(folder: Path) -> dict[str, Any]:
    """Score every benchmark of eval.json that is answered to the end, also those of earlier commands.

    Args:
        folder: of the evaluation.

    Returns:
        the content of scores.json: `benchmarks` (name -> `score.score` and the row of eval.json), `mean`, their
        unweighted mean accuracy, and `settings`.
    """
    record = runs.read_json(folder / "eval.json")
    rows = {name: runs.read_rows(predictions_file(folder, name)) for name in record["data"]}
    complete = {name: each for name, each in rows.items() if len(each) == record["data"][name]["questions"]}
    benchmarks = {name: {**score(each), **record["data"][name]} for name, each in complete.items()}
    mean = sum(each["accuracy"] for each in benchmarks.values()) / len(benchmarks)
    scores = {"benchmarks": benchmarks, "mean": mean, "settings": record["settings"]}
    runs.write_json(folder / "scores.json", scores)
    if record["settings"]["decoding"] != "ranking":
        runs.write_text(folder / "unparsed.md", unparsed_report(complete))
    return scores


def unparsed_report(predictions: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Markdown: how many outputs hold no answer word, and the first of them.

    Args:
        predictions: benchmark -> rows with `index`, `output`, `prediction` and `label`.
    """
    without = {name: [row for row in rows if not row["prediction"]] for name, rows in predictions.items()}
    lines = ["# Outputs without an answer word", "", "They count as wrong.", "", "| benchmark | unparsed | questions |"]
    lines += ["| --- | ---: | ---: |"]
    lines += [f"| {name} | {len(without[name])} | {len(rows)} |" for name, rows in predictions.items()]
    for name, rows in without.items():
        if rows:
            lines += ["", f"## {name}: the first {min(EXAMPLES, len(rows))} of {len(rows)}"]
        for row in rows[:EXAMPLES]:
            output = "\n".join(f"    {line}" for line in row["output"].splitlines()) or "    (nothing)"
            lines += ["", f"Question {row['index']}, expected `{row['label']}`:", "", output]
    return "\n".join(lines) + "\n"
