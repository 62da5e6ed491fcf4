"""Score a rating study: win, tie and loss with intervals, as in the paper's Table 6.

    moslora rate score study

Prints the table and what can be concluded. Writes STUDY/score: report.html and report.md with tests, agreement between
raters and attention checks, the figure, and every vote and number as CSV and scores.json. Votes may still be coming in.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Any

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora rate score`."""

    study: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """Folder that `moslora rate build` has made and raters have voted in."""
    out: Path | None = None
    """Folder for the report; STUDY/score by default. Its own files are written again, others never replaced."""
    max_failures: int = 1
    """Results are given with and without raters who fail more attention checks than this."""
    seed: int = 0
    """Of the bootstrap."""

    def run(self) -> None:
        """Print the table, write the report."""
        from .. import runs
        from ..report.rating import sentences, write_rating_report
        from ..tasks.subject.rating.score import score_study

        scores, votes = score_study(self.study, self.max_failures, self.seed)
        out = self.out or self.study / "score"
        page = write_rating_report(scores, [vote._asdict() for vote in votes], out)
        runs.write_json(out / "scores.json", scores)
        print_table(scores)
        for sentence in sentences(scores):
            print(sentence)
        print(f"\n{page}")


def print_table(scores: dict[str, Any]) -> None:
    """Print win, tie, loss and their difference."""
    from rich.table import Table

    from ..report.texts import percent, points, points_interval
    from ._console import wide_console

    table = Table()
    for column in ("metric", "subject", f"win ({scores['b']})", "tie", f"loss ({scores['a']})", "Δ", "95 %", "votes"):
        table.add_column(column, justify="left" if column in ("metric", "subject") else "right")
    rows = scores["table"]
    for row, after in zip(rows, [*rows[1:], None], strict=True):
        last = after is None or after["question"] != row["question"]
        shares = (percent(row[share]) for share in ("win", "tie", "loss"))
        interval = points_interval((row["intervals"] or {}).get("delta"))
        cells = (row["metric"], row["subject"], *shares, points(row["delta"]), interval, str(row["votes"]))
        table.add_row(*cells, end_section=last)
    wide_console(120).print(table)
