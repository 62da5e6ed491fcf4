"""Mixers as heat maps. Needs no screen and no torch."""

import json
import math
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError, DataError
from .canvas import drawing, save, shortened

if TYPE_CHECKING:
    import numpy
    from matplotlib.figure import Figure

CELL_INCHES = 1.6
MOST_INCHES = 60.0  # of a side of the figure; beyond it the cells shrink
MIXER_ENDING = ".lora_A.mixer"
PEFT_PREFIX = "base_model.model."


def read_mixers(adapter: Path) -> "dict[str, numpy.ndarray]":
    """The learned mixers in an adapter's folder; none if its mixers are fixed or absent.

    Reads the bytes of adapter_model.safetensors itself, because safetensors' numpy reader has no bfloat16.

    Returns:
        layer, or layer and expert -> M (r, r), float32.

    Raises:
        CheckpointError: the file is missing, cut off or no safetensors file.
    """
    path = adapter / "adapter_model.safetensors"
    mixers: dict[str, numpy.ndarray] = {}
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
            for key in sorted((key for key in header if key.endswith(MIXER_ENDING)), key=_natural):
                first, last = header[key]["data_offsets"]
                file.seek(8 + length + first)
                M = _as_float32(file.read(last - first), header[key]["dtype"]).reshape(header[key]["shape"])
                layer = key.removeprefix(PEFT_PREFIX).removesuffix(MIXER_ENDING)
                mixers |= {layer: M} if M.ndim == 2 else {f"{layer} [{number}]": each for number, each in enumerate(M)}
    except (OSError, ValueError, KeyError, struct.error) as error:
        raise CheckpointError(f"Cannot read the mixers in {path}: {error}. Expected a safetensors file.") from error
    return mixers


def _natural(name: str) -> list[tuple[int, str]]:
    """Sorts layer 10 after layer 9."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _as_float32(data: bytes, dtype: str) -> "numpy.ndarray":
    import numpy

    if dtype == "BF16":  # the upper half of a float32
        return (numpy.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return numpy.frombuffer(data, {"F16": "<f2", "F32": "<f4", "F64": "<f8"}[dtype]).astype("<f4")


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
    with drawing():
        figure = Figure(figsize=(cell * columns + 1.2, (cell + 0.4) * rows + 0.2), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        largest = max(float(abs(M).max()) for M in mixers.values()) or 1.0
        for axes in grid.flat:
            axes.set_axis_off()
        for axes, (name, M) in zip(grid.flat, mixers.items(), strict=False):
            image = axes.imshow(M, cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="nearest")
            axes.set_title(_folded(name), fontsize=6)
        figure.colorbar(image, ax=grid, label="M[row, column]", shrink=0.8)
    save(figure, out)


def mixers_by_method(mixers: "Mapping[str, Mapping[str, numpy.ndarray]]", layers: int = 4) -> "Figure":
    """Heat maps, a row a method with a scale of its own, a column a layer: the first, the last and some between.

    Args:
        mixers: method -> layer -> M (r, r); no method without layers.
        layers: columns at most.
    """
    from matplotlib.figure import Figure

    columns = min(layers, max(map(len, mixers.values())))
    with drawing():
        figure = Figure(figsize=(1.15 * columns + 0.9, 1.5 * len(mixers) + 0.1), layout="constrained")
        for part, (method, each) in zip(
            figure.subfigures(len(mixers), 1, squeeze=False).flat, mixers.items(), strict=True
        ):
            grid = part.subplots(1, columns, squeeze=False)
            part.suptitle(shortened(method, 40), fontsize=9, x=0.01, ha="left", fontweight="bold")
            chosen = [list(each)[place] for place in _evenly(len(each), columns)]
            largest = max(float(abs(each[name]).max()) for name in chosen) or 1.0
            for axes in grid.flat:
                axes.set_axis_off()
            for axes, name in zip(grid.flat, chosen, strict=False):
                image = axes.imshow(each[name], cmap="RdBu_r", vmin=-largest, vmax=largest, interpolation="none")
                axes.set_title(_folded(name, width=14), fontsize=5.5)
            part.colorbar(image, ax=grid, shrink=0.9)
    return figure


def _evenly(count: int, places: int) -> list[int]:
    """At most `places` numbers below `count`, the first and the last among them."""
    if count <= places:
        return list(range(count))
    return [round(place * (count - 1) / (places - 1)) for place in range(places)] if places > 1 else [0]


def _folded(name: str, width: int = 20) -> str:
    """A long name on two lines or more, broken at its dots."""
    lines = [""]
    for part in name.split("."):
        if lines[-1] and len(lines[-1]) + len(part) >= width:
            lines.append("")
        lines[-1] += part if not lines[-1] else f".{part}"
    return "\n".join(lines)
