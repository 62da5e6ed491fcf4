"""A sheet of pictures: a row a prompt, a column a run, the photographs of the subject on top."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import runs
from .canvas import WIDTH, canvas, drawing, shortened
from .page import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_PROMPTS = 12
MOST_RUNS = 4
PIXELS = 160  # longer side of a thumbnail
SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


def sheet(folders: Mapping[str, tuple[Path, Path]], number: int = 0) -> Picture | None:
    """The pictures of runs side by side, each prompt with the same seed; None if no picture is there any more.

    Args:
        folders: label -> run and its folder of pictures, all of one subject. The first of them are shown.
        number: of the sheet in its page.
    """
    shown = dict(list(folders.items())[:MOST_RUNS])
    found = {label: _pictures(images) for label, (_, images) in shown.items()}
    keys = _keys(list(found.values()))
    if not keys:
        return None
    photographs = _photographs(next(iter(shown.values()))[0])
    alt = f"Generated pictures of {', '.join(shown)}, a row for each of {len(keys)} prompts."
    caption = (
        "Above: photographs of the subject. Below: a row a prompt, a column a run, the same seed, and so the same "
        "noise, in a row. Not chosen: the first prompts and the first seed."
    )
    if len(shown) < len(folders):
        caption += f" Shown: {len(shown)} of {len(folders)} runs."
    return Picture(f"pictures-{number + 1}", _draw(found, keys, photographs), alt, caption)


def _keys(pictures: Sequence[Mapping[tuple[str, int], Path]]) -> list[tuple[str, int]]:
    """(prompt, seed) of the first seed of the first prompts, those that all runs have before others."""
    everywhere = [key for key in pictures[0] if all(key in each for each in pictures)]
    chosen: dict[str, int] = {}
    for prompt, seed in [*everywhere, *(key for each in pictures for key in each)]:
        chosen.setdefault(prompt, seed)
    return list(chosen.items())[:MOST_PROMPTS]


def _pictures(folder: Path) -> dict[tuple[str, int], Path]:
    """(prompt, seed) -> picture, in the order of prompts and seeds."""
    rows = runs.read_rows(folder / "images.jsonl")
    rows.sort(key=lambda row: (row["prompt_index"], row["seed"]))
    paths = {(row["prompt"], row["seed"]): folder / row["file"] for row in rows}
    return {key: path for key, path in paths.items() if path.is_file()}


def _photographs(folder: Path) -> list[Path]:
    place = runs.finished_record(folder)["config"].get("images")
    found = sorted(Path(place).glob("*")) if place else []
    return [path for path in found if path.suffix.lower() in SUFFIXES]


def _draw(
    found: Mapping[str, Mapping[tuple[str, int], Path]], keys: Sequence[tuple[str, int]], photographs: Sequence[Path]
) -> "Figure":
    columns = max(len(found), 2)
    across = 2 * columns  # photographs are half as large
    top = photographs[:across]
    with drawing():
        figure, _ = canvas(WIDTH, WIDTH / columns * len(keys) + WIDTH / across * bool(top) + 0.3)
        figure.clear()
        halves: Any = figure.subfigures(2, 1, height_ratios=(0.5 if top else 0.01, len(keys)))
        if top:
            places: Any = halves[0].subplots(1, across, squeeze=False)
            for number, axes in enumerate(places[0]):
                _show(axes, top[number] if number < len(top) else None)
        grid: Any = halves[1].subplots(len(keys), columns, squeeze=False)
        for row, key in enumerate(keys):
            for column, axes in enumerate(grid[row]):
                label = list(found)[column] if column < len(found) else None
                _show(axes, found[label].get(key) if label else None)
                if label and row == 0:
                    axes.set_title(shortened(label), loc="left", fontsize=8)
            grid[row][0].set_xlabel(shortened(key[0], 60), loc="left", fontsize=7)
    return figure


def _show(axes: "Axes", path: Path | None) -> None:
    """Draw a picture, or nothing, into axes without ticks."""
    import numpy as np
    from PIL import Image, ImageOps

    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)
    if path is not None:
        with Image.open(path) as opened:
            picture = ImageOps.exif_transpose(opened).convert("RGB")
        picture.thumbnail((PIXELS, PIXELS))
        axes.imshow(np.asarray(picture))
