"""Let a trained run answer vision-language benchmarks, and score the answers as in the paper's Table 5.

    moslora eval vision-language --run runs/moslora --data LMUData --benchmarks MMBench_DEV_EN AI2D_TEST MME

Writes RUN/eval/predictions/BENCHMARK.jsonl, RUN/eval/scores.json and RUN/eval/unparsed.md. The same command again goes
on where it stopped; naming more benchmarks adds them; a judge may be added later with --judge-url and --judge-model.
"""

import dataclasses
from typing import Annotated, Any

import tyro

from ..tasks.vision_language.evaluation.config import VisionEvalConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora eval vision-language`."""

    config: Annotated[VisionEvalConfig, tyro.conf.arg(name="")]
    """All settings."""

    def run(self) -> None:
        """Evaluate and print the scores."""
        from ..tasks.vision_language.evaluation.answering import load_answerer
        from ..tasks.vision_language.evaluation.evaluate import evaluate, results_folder

        scores = evaluate(self.config, load_answerer)
        print_scores(scores)
        folder = results_folder(self.config)
        for each in scores["benchmarks"].values():
            if "submission" in each:
                print(f"For the leaderboard: {folder / each['submission']}")
        if any(each["unmatched"] for each in scores["benchmarks"].values()):
            print(f"Answers that could not be read: {folder / 'unparsed.md'}")


def print_scores(scores: dict[str, Any]) -> None:
    """Print scores as a table."""
    from rich.table import Table

    from ._console import wide_console

    table = Table()
    for column in ("benchmark", "score", "95 % interval", "chance", "questions", "unread", "by judge"):
        table.add_column(column, justify="left" if column == "benchmark" else "right")
    for name, each in scores["benchmarks"].items():
        low, high = each["interval"] or (None, None)
        table.add_row(
            name,
            _percent(each["score"]) if each["score"] is not None else "hidden",
            "-" if low is None else f"{_percent(low)} to {_percent(high)}",
            _percent(each["chance"]),
            f"{each['questions']:,}",
            f"{each['unmatched']:,}",
            f"{each['judged']:,}" if each["judge"] else "-",
        )
    if scores["mean"] is not None:
        table.add_section()
        table.add_row("mean of the nine", _percent(scores["mean"]), *[""] * 5)
    wide_console(100).print(table)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
