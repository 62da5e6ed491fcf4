"""Figures of runs: losses over steps, accuracies with their intervals. Needs no screen and no torch."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import runs
from ..errors import DataError
from .canvas import WIDTH, canvas, drawing, panels, shortened
from .colours import look
from .summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SMOOTHING = 0.6  # weight of the past in the exponential mean that is drawn over the raw losses
MOST_POINTS = 150  # of a line, in a figure and its CSV; the metrics.jsonl of a run holds all


class Curve(NamedTuple):
    """Logged training losses of one run."""

    steps: list[int]
    losses: list[float]  # nats per token


def read_curve(folder: Path) -> Curve:
    """What a run has logged.

    Raises:
        DataError: a run has logged nothing.
    """
    rows = [row for row in runs.read_rows(folder / "metrics.jsonl") if "loss" in row]
    if not rows:
        raise DataError(f"{folder / 'metrics.jsonl'} holds no losses: train for at least `logging_steps` steps.")
    return Curve([row["step"] for row in rows], [row["loss"] for row in rows])


def curve_rows(curves: Mapping[str, Sequence[Curve]]) -> list[dict[str, Any]]:
    """What `losses_figure` draws, one row a point: label, number of the run, step, loss as logged and smoothed."""
    rows = []
    for label, each in curves.items():
        for number, curve in enumerate(each):
            logged, smoothed = _thin(*curve), _thin(curve.steps, smooth(curve.losses))
            for step, loss, mean in zip(*logged, smoothed[1], strict=True):
                rows.append({"label": label, "run": number, "step": step, "loss": loss, "smoothed": mean})
    return rows


def losses_figure(curves: Mapping[str, Sequence[Curve]], reference: str | None = None) -> "Figure":
    """Training loss over optimizer steps, a panel a label: every run faint and smoothed, their mean strong.

    Args:
        curves: label -> one curve a run; a label that is a method has that method's colour.
        reference: the label whose mean is dashed in the other panels; the first by default.
    """
    from matplotlib.ticker import LogLocator, NullLocator

    reference = next(iter(curves)) if reference is None else reference
    smoothed = {label: [_thin(curve.steps, smooth(curve.losses)) for curve in each] for label, each in curves.items()}
    means = {label: _mean_line(lines) for label, lines in smoothed.items()}
    with drawing():
        figure, axes = panels(len(curves), sharex=True, sharey=True)
        for place, (label, lines) in zip(axes, smoothed.items(), strict=True):
            colour = look(label).colour
            if label != reference and reference in means:
                place.plot(*means[reference], color=look(reference).colour, linewidth=1, linestyle="--")
            for line in lines:
                place.plot(*line, color=colour, alpha=0.35, linewidth=0.8)
            place.plot(*means[label], color=colour, linewidth=1.8)
            place.set_title(shortened(label, 20), loc="left")
            place.set_yscale("log")
            place.yaxis.set_major_formatter("{x:g}")
            place.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            place.yaxis.set_minor_locator(NullLocator())
        figure.supxlabel("optimizer step", fontsize=9)
        figure.supylabel("training loss (nats per token)", fontsize=9)
    return figure


def accuracies_figure(summaries: Sequence[Summary], measure: str = "accuracy") -> "Figure":
    """Accuracy on each benchmark as a point with its 95 % interval, one colour and marker a summary.

    Args:
        summaries: of runs that were evaluated.
        measure: what the benchmarks measure, if it is not accuracy.
    """
    names = list(dict.fromkeys(name for summary in summaries for name in summary.benchmarks))
    with drawing():
        figure, [[axes]] = canvas(max(WIDTH, 1.4 + 0.25 * len(summaries) * len(names)), 3.6)
        width = 0.7 / len(summaries)
        for number, summary in enumerate(summaries):
            colour, marker = look(summary.label)
            if not summary.parameters:
                colour, marker = "black", "x"
            places, centres, below, above = [], [], [], []
            for column, name in enumerate(names):
                if name not in summary.benchmarks:
                    continue
                accuracy, (low, high) = (summary.benchmarks[name][key] for key in ("accuracy", "interval"))
                places.append(column + (number - (len(summaries) - 1) / 2) * width)
                centres.append(100 * accuracy)
                below.append(100 * max(accuracy - low, 0))
                above.append(100 * max(high - accuracy, 0))  # a bootstrap interval may lie beside its value
            style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "", "markersize": 4, "capsize": 2}
            axes.errorbar(places, centres, [below, above], label=shortened(summary.label), **style)
        axes.set(ylabel=f"{measure} (%), 95 % interval", ylim=(0, 100), xlim=(-0.5, len(names) - 0.5))
        slanted: dict[str, Any] = {"rotation": 30, "ha": "right"} if len(names) > 4 else {}
        axes.set_xticks(range(len(names)), names, **slanted)
        longest = max(len(shortened(summary.label)) for summary in summaries)
        columns = min(len(summaries), max(1, 60 // (longest + 6)))
        figure.legend(frameon=False, loc="outside upper left", ncols=columns)
    return figure


def smooth(values: Sequence[float]) -> list[float]:
    """Exponential mean, corrected for the missing past (as Adam corrects its moments)."""
    mean, smoothed = 0.0, []
    for count, value in enumerate(values, 1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * value
        smoothed.append(mean / (1 - SMOOTHING**count))
    return smoothed


def _thin(steps: Sequence[int], values: Sequence[float]) -> tuple[list[int], list[float]]:
    """Every n-th point and the last, so that no line has many more than `MOST_POINTS`."""
    stride = max(1, len(steps) // MOST_POINTS)
    kept = sorted({*range(0, len(steps), stride), len(steps) - 1})
    return [steps[index] for index in kept], [values[index] for index in kept]


def _mean_line(lines: Sequence[tuple[list[int], list[float]]]) -> tuple[list[int], list[float]]:
    """Mean over the runs at the steps that all of them logged."""
    found = [dict(zip(*line, strict=True)) for line in lines]
    steps = sorted(set.intersection(*(set(values) for values in found)))
    return steps, [sum(values[step] for values in found) / len(found) for step in steps]
