"""Mixers as heat maps. Needs no screen and no torch."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import DataError

if TYPE_CHECKING:
    import numpy

CELL_INCHES = 1.6
MOST_INCHES = 60.0  # of a side of the figure; beyond it the cells shrink


def draw_mixers(mixers: "Mapping[str, numpy.ndarray]", out: Path) -> None:
    """One heat map a mixer, all with one scale of colours that is white at zero.

    Args:
        mixers: name -> M (r, r).
        out: the picture; its suffix says the format, for example .png or .svg.

    Raises:
        DataError: there is no mixer to draw, or matplotlib cannot write that format.
    """
    from matplotlib.figure import Figure

    if not mixers:
        raise DataError("Found no learned mixer to draw: this adapter's mixers are fixed or absent.")
    columns = math.ceil(math.sqrt(2 * len(mixers)))
    rows = math.ceil(len(mixers) / columns)
    cell = min(CELL_INCHES, MOST_INCHES / columns)
    figure = Figure(figsize=(cell * columns + 1.2, (cell + 0.4) * rows + 0.2), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False)
    largest = max(float(abs(M).max()) for M in mixers.values()) or 1.0
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, (name, M) in zip(grid.flat, mixers.items(), strict=False):
        image = axes.imshow(M, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
        axes.set_title(_folded(name), fontsize=6)
    figure.colorbar(image, ax=grid, label="M[row, column]", shrink=0.8)
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        figure.savefig(out, dpi=150)
    except ValueError as error:
        raise DataError(f"Cannot draw {out}: {error}. Expected an ending such as .png, .svg or .pdf.") from None


def _folded(name: str, width: int = 20) -> str:
    """A long name on two lines or more, broken at its dots."""
    lines = [""]
    for part in name.split("."):
        if lines[-1] and len(lines[-1]) + len(part) >= width:
            lines.append("")
        lines[-1] += part if not lines[-1] else f".{part}"
    return "\n".join(lines)
