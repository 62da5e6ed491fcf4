"""Paper, pens and file formats of every figure. Needs no screen and no torch."""

import base64
import contextlib
import io
import itertools
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape

from ..errors import DataError

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 4.8  # inches: the text is legible on a phone, where the figure is as wide as the screen
LARGEST_SVG = 300_000  # characters; a larger figure becomes a PNG
DPI = 150
FAR = 0.6  # of the width of the axes, left of which a label stands beside its point
# Text stays text, and a $ in a file name is no formula.
_STYLE: Any = {
    "text.parse_math": False,
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.fontsize": 8,
}


def drawing() -> contextlib.AbstractContextManager[None]:
    """Style of the figures; use it around making one, since matplotlib reads its settings then."""
    import matplotlib

    return matplotlib.rc_context(_STYLE)


def canvas(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> "tuple[Figure, list[list[Axes]]]":
    """A figure of so many inches and its axes, by row and column. `options` go to `Figure.subplots`."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, **options)
    for axes in grid.flat:
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", alpha=0.25)
    return figure, grid.tolist()


def panels(count: int, height: float = 1.35, most_columns: int = 3, **options: Any) -> "tuple[Figure, list[Axes]]":
    """A figure of `count` small axes, each `height` inches high, and those axes."""
    columns = min(count, most_columns)
    rows = math.ceil(count / columns)
    figure, grid = canvas(WIDTH, height * rows + 0.7, rows, columns, **options)
    axes = [each for row in grid for each in row]
    for unused in axes[count:]:
        unused.set_axis_off()
    for place in range(max(0, count - columns), count):  # the last of each column carries the numbers below
        axes[place].tick_params(labelbottom=True)
    return figure, axes[:count]


def shortened(label: str, length: int = 24) -> str:
    """A label that leaves room for the figure: its beginning and its end."""
    label, half = " ".join(label.split()), length // 2
    return label if len(label) <= length else f"{label[:half]}…{label[-half + 1 :]}"


def freeze(figure: "Figure") -> None:
    """Lay the figure out once and for all, which takes longer than drawing it."""
    with drawing():
        figure.draw_without_rendering()
    figure.set_layout_engine("none")


def spread(places: Sequence[float], gap: float) -> list[float]:
    """The places moved apart until neighbours are `gap` apart, in the same order and as a whole unmoved."""
    order = sorted(range(len(places)), key=lambda index: places[index])
    moved = list(places)
    for before, index in itertools.pairwise(order):
        moved[index] = max(places[index], moved[before] + gap)
    shift = (sum(moved) - sum(places)) / max(len(places), 1)
    return [place - shift for place in moved]


def label_at_the_right(axes: "Axes", labels: Sequence[tuple[str, float, float, str]]) -> None:
    """Write labels in a column right of the axes, each joined to its point by a thin line.

    A point that is far from that column has its label beside it.

    Args:
        axes: with final limits and size.
        labels: text, x and y of the point, colour.
    """
    low, high = axes.get_ylim()
    to_share = (axes.transData + axes.transAxes.inverted()).transform
    far = [label for label in labels if to_share(label[1:3])[0] < FAR]
    labels = [label for label in labels if label not in far]
    for text, x, y, _ in far:
        axes.annotate(shortened(text), (x, y), xytext=(6, 0), textcoords="offset points", va="center", fontsize=8)
    height = axes.get_figure().get_figheight()  # type: ignore[union-attr]
    gap = 0.155 / height * (high - low)  # a line of text
    for (text, x, y, colour), place in zip(labels, spread([label[2] for label in labels], gap), strict=True):
        axes.annotate(
            shortened(text),
            (x, y),
            xytext=(1.06, (place - low) / (high - low)),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            arrowprops={"arrowstyle": "-", "color": colour, "linewidth": 0.6, "shrinkA": 1, "shrinkB": 3},
            annotation_clip=False,
        )


def save(figure: "Figure", out: Path) -> None:
    """Write a figure; the suffix of `out` says the format.

    Raises:
        DataError: matplotlib cannot write that format.
    """
    out.parent.mkdir(parents=True, exist_ok=True)
    try:
        with drawing():
            figure.savefig(out, dpi=DPI)
    except ValueError as error:
        raise DataError(f"Cannot draw {out}: {error}. Expected an ending such as .png, .svg or .pdf.") from None


def embedded(figure: "Figure", name: str, alt: str) -> str:
    """A figure as HTML that needs no other file: SVG in the page's own text colour, or a PNG where that is smaller.

    Args:
        figure: to draw.
        name: unique in the page; letters, digits and hyphens.
        alt: what the figure shows, for those who cannot see it.
    """
    text = _svg(figure, name, alt)
    if len(text) <= LARGEST_SVG:
        return text
    buffer = io.BytesIO()
    with drawing():
        figure.savefig(buffer, format="png", dpi=DPI)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<img src="data:image/png;base64,{data}" alt="{escape(alt, {chr(34): "&quot;"})}">'


def _svg(figure: "Figure", name: str, alt: str) -> str:
    import matplotlib

    buffer = io.StringIO()
    with drawing(), matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    text = re.sub(r"<style.*?</style>", "", text, flags=re.DOTALL)  # would hold for the whole page; page.css has it
    # Several figures share one page: names that something refers to must differ, the others go.
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    text = re.sub(r' id="([^"]*)"', lambda found: f' id="{name}-{found[1]}"' if found[1] in used else "", text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace("#000000", "currentColor")
    width, height = (float(part) for part in re.findall(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', text)[0])
    root = f'<svg role="img" aria-label="{escape(alt, {chr(34): "&quot;"})}" viewBox="0 0 {width:g} {height:g}"'
    root += ' xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    return re.sub(r"<svg[^>]*>", lambda _: root, text, count=1)
