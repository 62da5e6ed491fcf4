"""Show visual instruction tuning offline: train LoRA, MoSLoRA and 4-bit QMoSLoRA on questions about drawn scenes.

    moslora demo vision --out demo-vision

Uses the small vision-language model that comes with the package, which knows drawn scenes and was never asked a
question. Every step is a command that is printed before it runs. A finished step is not repeated; remove the folder to
see all of it again.
"""

import base64
import csv
import dataclasses
import importlib.util
import io
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ._steps import moslora, moslora_together

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ..report.page import Table

RECIPE = "vision/embedded"
# name -> what `moslora train vision-language` is told
METHODS: dict[str, tuple[str, ...]] = {
    "LoRA": ("--method", "lora"),
    "MoSLoRA": ("--method", "moslora"),
    "QMoSLoRA": ("--method", "moslora", "--quantize", "nf4"),
}
BASE = "base model"
BATCH = 50  # questions per batch of an evaluation
RIGHT, WRONG = "#1a7f37", "#b3261e"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora demo vision`."""

    out: Path = Path("demo-vision")
    """Folder for everything the demo makes."""

    def run(self) -> None:
        """Run every step and say where its results are."""
        from ..embedded import write_visual_questions

        start = time.perf_counter()
        data = self.out / "data"
        write_visual_questions(data)
        print(f"questions about drawn scenes are in {data}: train.json with images, and the test")
        runs = {name: self.out / "runs" / name.lower() for name in METHODS}
        if importlib.util.find_spec("bitsandbytes") is None:
            del runs["QMoSLoRA"]
            print("QMoSLoRA is left out, since it needs bitsandbytes: pip install 'moslora[quantized]'")
        moslora_together(*(_training(name, run, data) for name, run in runs.items() if not _is_done(run)))
        first = next(iter(runs.values()))
        moslora_together((*_evaluation(first, data), "--base-only"), *(_evaluation(run, data) for run in runs.values()))
        moslora("report", *runs.values(), "--out", self.out / "report")
        page = self._write_answers({BASE: first / "eval-base", **{name: run / "eval" for name, run in runs.items()}})
        print("\nThis shows that every part works. The small model is too weak to rank methods.")
        print(f"Open {page.resolve()}")
        print(f"Finished in {time.perf_counter() - start:.0f} s. Everything is in {self.out.resolve()}")

    def _write_answers(self, folders: Mapping[str, Path]) -> Path:
        """A page with the scores by category, and the first question of each with what every model answered."""
        from .. import runs
        from ..embedded.vision import BENCHMARK
        from ..report.page import Page, Picture, Section, write_page

        scores = {
            name: runs.read_json(folder / "scores.json")["benchmarks"][BENCHMARK] for name, folder in folders.items()
        }
        found = {name: _answers(folder) for name, folder in folders.items()}
        with (self.out / "data" / f"{BENCHMARK}.tsv").open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file, delimiter="\t"))
        shown = list({row["category"]: row for row in reversed(rows)}.values())[::-1]
        picture = Picture(
            "answers",
            draw_answers(shown, found),
            "Nine pictures of drawn scenes, each with a question and the answers of every model",
            "The first question of each category in the test, and what the models answer.",
        )
        items: list[Any] = [_scores_table(scores), picture]
        facts = [f"{len(rows)} questions about pictures that were not in training; 95 % Wilson intervals; one seed"]
        return write_page(
            Page("Questions about drawn scenes", facts, [Section("Answers", items)], {}), self.out / "answers"
        )


def draw_answers(rows: Sequence[Mapping[str, str]], answers: Mapping[str, Mapping[str, str]]) -> "Figure":
    """Pictures with their question and everybody's answers, three in a row.

    Args:
        rows: of the test's file.
        answers: model -> index of a row -> what it answered.
    """
    from PIL import Image

    from ..report.canvas import drawing, panels

    with drawing():
        figure, axes = panels(len(rows), height=3.0)
        for panel, row in zip(axes, rows, strict=False):
            picture = Image.open(io.BytesIO(base64.b64decode(row["image"])))
            panel.imshow(picture, interpolation="nearest")
            panel.set_axis_off()
            right = row[row["answer"]]
            lines = [(textwrap.fill(row["question"], 30), "black")]
            lines += [
                (f"{name}: {texts[row['index']]}", RIGHT if texts[row["index"]] == right else WRONG)
                for name, texts in answers.items()
            ]
            place = -0.04
            for text, colour in lines:
                panel.text(0, place, text, color=colour, transform=panel.transAxes, va="top", fontsize=7)
                place -= 0.13 * (1 + text.count("\n"))
    return figure


def _answers(folder: Path) -> dict[str, str]:
    """Index of a question -> the option that was answered, or the output where it is none."""
    from .. import runs
    from ..embedded.vision import BENCHMARK

    rows = {row["index"]: row for row in runs.read_rows(folder / "predictions" / f"{BENCHMARK}.jsonl")}
    read = runs.read_rows(folder / "extracted" / f"{BENCHMARK}.jsonl")
    return {
        row["index"]: rows[row["index"]][row["prediction"]] if row["prediction"] else row["output"][:25] for row in read
    }


def _scores_table(scores: Mapping[str, Mapping[str, Any]]) -> "Table":
    """One row a model: all questions with an interval, then every category."""
    from ..report.page import Cell, Table

    categories = list(next(iter(scores.values()))["parts"]["categories"])
    rows = []
    for name, each in scores.items():
        parts = [each["parts"]["categories"][category]["score"] for category in categories]
        interval = "{:.1%} to {:.1%}".format(*each["interval"])
        cells = [Cell(f"{part:.0%}", part) for part in parts]
        rows.append([Cell(name), Cell(f"{each['score']:.1%}", each["score"], interval), *cells])
    return Table("Share of questions answered right", ["", "all", *categories], rows)


def _evaluation(run: Path, data: Path) -> tuple[str | Path, ...]:
    from ..embedded.vision import BENCHMARK

    words = ("eval", "vision-language", "--run", run, "--data", data, "--benchmarks", BENCHMARK)
    return (*words, "--batch-size", str(BATCH))


def _training(name: str, run: Path, data: Path) -> tuple[str | Path, ...]:
    words: tuple[str | Path, ...] = ("train", "vision-language", "--recipe", RECIPE, *METHODS[name])
    return (*words, "--data", data / "train.json", "--images", data / "images", "--out", run)


def _is_done(run: Path) -> bool:
    from .. import runs

    return runs.is_done(run)
