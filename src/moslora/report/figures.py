"""Figures of run folders: losses over steps, accuracies with their intervals. Needs no screen and no torch."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from .. import runs
from ..errors import DataError
from .summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which the colour-blind can tell apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
BASE_COLOUR = "#000000"
SMOOTHING = 0.6  # weight of the past in the exponential mean that is drawn over the raw losses


def draw_losses(folders: Mapping[str, Path], out: Path) -> None:
    """Training loss over optimizer steps, one line a run: the logged values faint, their exponential mean strong.

    Args:
        folders: label -> run folder.
        out: the picture; its suffix says the format, for example .png or .svg.

    Raises:
        DataError: a run has logged nothing.
    """
    figure, axes = _canvas(6.4, 4.0)
    for (label, folder), colour in zip(folders.items(), itertools.cycle(COLOURS), strict=False):
        rows = [row for row in runs.read_rows(folder / "metrics.jsonl") if "loss" in row]
        if not rows:
            raise DataError(f"{folder / 'metrics.jsonl'} holds no losses: train for at least `logging_steps` steps.")
        steps, losses = [row["step"] for row in rows], [row["loss"] for row in rows]
        axes.plot(steps, losses, color=colour, alpha=0.25, linewidth=1)
        axes.plot(steps, _smooth(losses), color=colour, linewidth=2, label=label)
    axes.set(xlabel="optimizer step", ylabel="training loss (nats per token)", yscale="log")
    for axis_formatter in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
        axis_formatter("{x:g}")
    axes.legend(frameon=False)
    _save(figure, out)


def draw_accuracies(summaries: Sequence[Summary], out: Path) -> None:
    """Accuracy on each benchmark as a point with its 95 % interval, one colour a summary.

    Args:
        summaries: of runs that were evaluated.
        out: the picture; its suffix says the format.
    """
    names = list(dict.fromkeys(name for summary in summaries for name in summary.benchmarks))
    figure, axes = _canvas(2.4 + 1.6 * len(names), 4.0)
    width = 0.6 / len(summaries)
    colours = itertools.cycle(COLOURS)
    for number, summary in enumerate(summaries):
        colour = next(colours) if summary.parameters else BASE_COLOUR
        places, points, below, above = [], [], [], []
        for column, name in enumerate(names):
            if name not in summary.benchmarks:
                continue
            accuracy, (low, high) = (summary.benchmarks[name][key] for key in ("accuracy", "interval"))
            places.append(column + (number - (len(summaries) - 1) / 2) * width)
            points.append(100 * accuracy)
            below.append(100 * (accuracy - low))
            above.append(100 * (high - accuracy))
        axes.errorbar(places, points, [below, above], fmt="o", color=colour, capsize=4, label=summary.label)
    axes.set(ylabel="accuracy (%), 95 % interval", ylim=(0, 100), xlim=(-0.5, len(names) - 0.5))
    axes.set_xticks(range(len(names)), names)
    figure.legend(frameon=False, loc="outside upper center", ncols=len(summaries))
    _save(figure, out)


def _canvas(width: float, height: float) -> "tuple[Figure, Axes]":
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    return figure, axes


def _save(figure: "Figure", out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=150)


def _smooth(values: Sequence[float]) -> list[float]:
    """Exponential mean, corrected for the missing past (as Adam corrects its moments)."""
    mean, smoothed = 0.0, []
    for count, value in enumerate(values, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        smoothed.append(mean / (1 - SMOOTHING**count))
    return smoothed
