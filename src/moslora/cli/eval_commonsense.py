"""Let a trained run answer commonsense benchmarks, and score the answers.

    moslora eval commonsense --run runs/moslora --data dataset --benchmarks boolq piqa ARC-Easy openbookqa

Writes RUN/eval/predictions/BENCHMARK.jsonl, RUN/eval/scores.json and RUN/eval/unparsed.md. The same command again goes
on where it stopped; naming more benchmarks adds them.
"""

import dataclasses
from typing import Annotated, Any

import tyro

from ..tasks.commonsense.config import CommonsenseEvalConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora eval commonsense`."""

    config: Annotated[CommonsenseEvalConfig, tyro.conf.arg(name="")]
    """All settings."""

    def run(self) -> None:
        """Evaluate and print the scores."""
        from ..tasks.commonsense.evaluate import evaluate, results_folder

        scores = evaluate(self.config)
        print_scores(scores)
        if any(each["unanswered"] for each in scores["benchmarks"].values()):
            print(f"Outputs without an answer word: {results_folder(self.config) / 'unparsed.md'}")


def print_scores(scores: dict[str, Any]) -> None:
    """Print accuracies as a table."""
    from rich.console import Console
    from rich.table import Table

    table = Table()
    for column in ("benchmark", "accuracy", "95 % interval", "chance", "questions", "unanswered"):
        table.add_column(column, justify="left" if column == "benchmark" else "right")
    for name, each in scores["benchmarks"].items():
        low, high = each["interval"]
        interval = f"{low:.1%} to {high:.1%}"
        counts = (f"{each['n']:,}", f"{each['unanswered']:,}")
        table.add_row(name, f"{each['accuracy']:.1%}", interval, f"{each['chance']:.1%}", *counts)
    if len(scores["benchmarks"]) > 1:
        table.add_section()
        table.add_row("mean", f"{scores['mean']:.1%}", "", "", "", "")
    Console().print(table)
