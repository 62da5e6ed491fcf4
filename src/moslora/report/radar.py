"""Radar charts: an axis a benchmark or ability, one line a run. Needs no screen and no torch."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from .canvas import WIDTH, drawing, shortened
from .colours import look

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.projections.polar import PolarAxes

_STYLES = ("-", "--", ":", "-.")
_RINGS = 4


class Axes(NamedTuple):
    """One chart."""

    title: str
    names: Sequence[str]  # of the axes, clockwise from the top
    lines: Mapping[str, Sequence[float]]  # label of a run -> its scores in [0, 1], one an axis


def radar_figure(panels: Sequence[Axes]) -> "Figure":
    """Charts below each other, so that they are as wide as the screen of a phone.

    Args:
        panels: with the same runs. With several runs, an axis is scaled to its best; one run is drawn in percent.
    """
    from matplotlib.figure import Figure

    with drawing():
        figure = Figure(figsize=(WIDTH, 4.1 * len(panels) + 0.3), layout="constrained")
        for place, panel in enumerate(panels, 1):
            axes: Any = figure.add_subplot(len(panels), 1, place, projection="polar")
            _draw(axes, panel)
        handles, labels = figure.axes[0].get_legend_handles_labels()
        longest = max(map(len, labels))
        columns = min(len(labels), max(1, 60 // (longest + 6)))
        figure.legend(handles, labels, frameon=False, loc="outside upper left", ncols=columns)
    return figure


def relative(lines: Mapping[str, Sequence[float]]) -> tuple[dict[str, list[float]], list[float]]:
    """Scores in percent of the best run's on the same axis, and those best; an axis that nobody scores on is 100."""
    best = [max(values) for values in zip(*lines.values(), strict=True)]
    scaled = {
        label: [100 * value / most if most else 100.0 for value, most in zip(values, best, strict=True)]
        for label, values in lines.items()
    }
    return scaled, best


def innermost(values: Sequence[float]) -> float:
    """Where the centre of a chart lies: a multiple of ten clearly below all values, at least 0."""
    lowest = min(values)
    spread = 100 - lowest
    return max(0.0, 10 * math.floor((lowest - max(spread, 10) / 2) / 10))


def _draw(axes: "PolarAxes", panel: Axes) -> None:
    scaled, best = relative(panel.lines)
    several = len(panel.lines) > 1
    names = [f"{name}\n{100 * most:.1f}" for name, most in zip(panel.names, best, strict=True)]
    if not several:
        scaled = {label: [100 * value for value in values] for label, values in panel.lines.items()}
    centre = innermost([value for values in scaled.values() for value in values]) if several else 0.0
    angles = [2 * math.pi * place / len(names) for place in range(len(names))]
    used: dict[str, int] = {}
    for label, values in scaled.items():
        colour, marker = ("black", "x") if label == "base model" else look(label)
        style = _STYLES[used.setdefault(colour, 0) % len(_STYLES)]  # runs of one method differ in their dashes
        used[colour] += 1
        closed = [*values, values[0]]
        pen: dict[str, Any] = {"color": colour, "linestyle": style, "marker": marker, "markersize": 3.5}
        axes.plot([*angles, angles[0]], closed, linewidth=1.5, label=shortened(label), clip_on=False, **pen)
    axes.set_theta_zero_location("N")
    axes.set_theta_direction(-1)
    axes.set_xticks(angles, names)
    axes.tick_params(axis="x", pad=7)
    axes.set_ylim(centre, 100)
    rings = [centre + (100 - centre) * number / _RINGS for number in range(1, _RINGS + 1)]
    axes.set_yticks(rings, [f"{ring:g}" for ring in rings], fontsize=7, color="#767676")
    axes.set_rlabel_position(math.degrees(angles[1]) / 2)  # between two axes
    axes.grid(alpha=0.35)
    axes.spines["polar"].set_alpha(0.35)
    axes.patch.set_alpha(0)
    if panel.title:
        axes.set_title(panel.title, loc="left", pad=14)
    _turn_labels(axes, angles)


def _turn_labels(axes: "PolarAxes", angles: Sequence[float]) -> None:
    """Names at the right begin at their axis, names at the left end there."""
    for label, angle in itertools.zip_longest(axes.get_xticklabels(), angles):
        side = math.sin(angle)
        label.set_horizontalalignment("center" if abs(side) < 0.1 else "left" if side > 0 else "right")
