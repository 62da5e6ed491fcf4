"""Measure generated pictures: likeness to the subject, faithfulness to the prompt, diversity.

    moslora eval subject --run runs/moslora
    moslora eval subject --run runs/lora runs/moslora --clip models/clip --metrics clip-i clip-t

DINO, DINOv2 and CLIP-I compare every picture with every photograph of the subject, CLIP-T with its prompt; LPIPS is the
distance between pictures of one prompt, and needs --lpips. Writes RUN/eval/scores.json, pictures.csv, pairs.csv and
lpips.csv; several runs are compared with the first, prompt by prompt and seed by seed, in its comparison.json. The
same command again computes only what is new.
"""

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from ..tasks.subject.metrics.config import SubjectEvalConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora eval subject`."""

    run_: Annotated[tuple[Path, ...], tyro.conf.arg(name="run")]
    """Folders of runs with generated pictures; of several, the one to compare with first. May be repeated."""
    config: Annotated[SubjectEvalConfig, tyro.conf.arg(name="")]
    """All settings."""

    @classmethod
    def parse(cls, arguments: list[str]) -> "Command":
        """The command of these arguments; what follows several --run counts as if it followed one."""
        first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
        first.add_argument("--run", nargs="+", action="extend", default=[])
        known, rest = first.parse_known_args(arguments)
        folders = ["--run", *known.run] if known.run else []
        return tyro.cli(cls, args=[*rest, *folders], prog="moslora eval subject", description=__doc__)

    def run(self) -> None:
        """Measure, and print means, intervals and differences."""
        from .. import runs
        from ..tasks.subject.metrics.evaluate import evaluate
        from ..tasks.subject.metrics.pictures import results_folder

        scores = evaluate(self.run_, self.config)
        results = results_folder(self.run_[0], self.config)
        print_scores(dict(zip(map(str, self.run_), scores, strict=True)))
        if "clip-t" in self.config.metrics:
            tokens = sorted({each["unique_token"] for each in scores})
            print(f"clip-t: prompts without {', '.join(map(repr, tokens))}")
        for metric, reason in scores[0]["left_out"].items():
            if metric in self.config.metrics:
                print(f"left out: {metric} ({reason})")
        if len(self.run_) > 1:
            print_comparisons(runs.read_json(results / "comparison.json")["comparisons"])
        print(f"Rows and intervals of every prompt: {results}")


def print_scores(scores: Mapping[str, Mapping[str, Any]]) -> None:
    """Print the metrics of runs as one table.

    Args:
        scores: folder -> content of its scores.json.
    """
    from rich.table import Table

    from ._console import wide_console

    table = Table()
    for column in ("subject", "method", "metric", "mean", "95 % interval", "n", "model"):
        table.add_column(column, justify="right" if column in ("mean", "n") else "left")
    for each in scores.values():
        for name, found in each["metrics"].items():
            interval = "{:.4f} to {:.4f}".format(*found["interval"]) if found["interval"] else "-"
            count = f"{found['pairs']} pairs" if "pairs" in found else _count(found)
            model = found["model"].get("name") or found["model"]["net"]
            table.add_row(each["subject"], each["method"], name, f"{found['mean']:.4f}", interval, count, model)
        table.add_section()
    wide_console(140).print(table)


def print_comparisons(comparisons: Sequence[Mapping[str, Any]]) -> None:
    """Print one sentence a difference, under the subject."""
    if not comparisons:
        print("No two runs have the same photographs, so there is nothing to compare.")
    for subject in dict.fromkeys(each["subject"] for each in comparisons):
        print(f"{subject}:")
        for each in comparisons:
            if each["subject"] == subject:
                print(f"  {each['sentence']}")


def _count(found: Mapping[str, Any]) -> str:
    photographs = found["photographs"]
    return f"{found['pictures']} x {photographs}" if photographs else f"{found['pictures']}"
