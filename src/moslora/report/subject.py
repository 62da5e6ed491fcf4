"""Runs that draw a subject: their metrics with intervals, prompt by prompt, and a sheet of their pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import runs
from .canvas import WIDTH, canvas, drawing, shortened
from .colours import look
from .page import Cell, Picture, Section, Table
from .subject_sheet import sheet
from .texts import MISSING

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TASK = "subject"  # as scores.json names it
BASE = "base model"
NAMES = {"dino": "DINO", "dinov2": "DINOv2", "clip-i": "CLIP-I", "clip-t": "CLIP-T", "lpips": "LPIPS diversity"}
MEANINGS = {
    "dino": "cosine similarity of generated pictures and photographs, DINO",
    "dinov2": "cosine similarity of generated pictures and photographs, DINOv2",
    "clip-i": "cosine similarity of generated pictures and photographs, CLIP",
    "clip-t": "cosine similarity of pictures and their prompts, CLIP",
}
CAUTION = (
    "Each run is one training: intervals are over prompts, seeds of the pictures and photographs, and know nothing of "
    "other training seeds."
)


class Measured(NamedTuple):
    """One run's evaluation."""

    label: str
    folder: Path  # of the run
    images: Path  # folder of the pictures
    scores: dict[str, Any]  # content of scores.json


def read_measured(folders: Mapping[str, Path]) -> list[Measured]:
    """The evaluations of subject runs, by label; first the base model, if the first run has measured it.

    Runs of other tasks and runs that were not measured are left out.
    """
    first = next(iter(folders.values()))
    places = {BASE: (first, "eval-base", "images-base")}
    places |= {label: (folder, "eval", "images") for label, folder in folders.items()}
    found = []
    for label, (folder, results, images) in places.items():
        path = folder / results / "scores.json"
        if path.exists() and (scores := runs.read_json(path)).get("task") == TASK:
            found.append(Measured(label, folder, folder / images, scores))
    return found


def subject_sections(folders: Mapping[str, Path]) -> list[Section]:
    """What subject runs reach; nothing if none of the runs is one that was measured."""
    measured = read_measured(folders)
    if not measured:
        return []
    items: list[Any] = [_table(measured), CAUTION, *_differences(measured), "Measured with:", _models(measured)]
    prompts = [
        Picture(
            f"prompts-{metric}",
            prompts_figure(measured, metric),
            f"{NAMES[metric]} of every prompt for {', '.join(each.label for each in measured)}.",
            f"{MEANINGS[metric].capitalize()}: mean of each prompt with its 95 % bootstrap interval.",
        )
        for metric in MEANINGS
        if any(metric in each.scores["metrics"] for each in measured)
    ]
    sections = [Section("Likeness, faithfulness, diversity", items), Section("Prompt by prompt", prompts)]
    sheets = [found for number, each in enumerate(_subjects(measured)) if (found := sheet(each, number))]
    return [*sections, *([Section("Pictures", sheets)] if sheets else [])]


def subject_rows(folders: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """CSV files: `metrics`, one row a run and metric, and `prompts`, one row a run, metric and prompt."""
    metrics, prompts = [], []
    for label, _, _, scores in read_measured(folders):
        for metric, found in scores["metrics"].items():
            metrics.append({"run": label, "subject": scores["subject"], "metric": metric, **_numbers(found)})
        for row in scores["prompts"]:
            for metric, found in row["metrics"].items():
                place = {"prompt_index": row["prompt_index"], "prompt": row["prompt"]}
                prompts.append({"run": label, "metric": metric, **place, **_numbers(found)})
    return {"metrics": metrics, "prompts": prompts}


def prompts_figure(measured: Sequence[Measured], metric: str) -> "Figure":
    """One metric of every prompt as a point with its interval, one colour and marker a run.

    Args:
        measured: the runs; prompts are matched by their text.
        metric: as in scores.json.
    """
    texts = list(dict.fromkeys(row["prompt"] for each in measured for row in each.scores["prompts"]))
    with drawing():
        figure, [[axes]] = canvas(WIDTH, 1.0 + 0.24 * len(texts) * max(1, len(measured) / 2))
        for number, each in enumerate(measured):
            colour, marker = look(each.label)
            rows = [row for row in each.scores["prompts"] if metric in row["metrics"]]
            found = [row["metrics"][metric] for row in rows]
            shift = 0.7 * ((number + 0.5) / len(measured) - 0.5)
            places = [texts.index(row["prompt"]) + shift for row in rows]
            means = [one["mean"] for one in found]
            ends = [one["interval"] or (one["mean"], one["mean"]) for one in found]
            errors = [[mean - low for mean, (low, _) in zip(means, ends, strict=True)]]
            errors.append([high - mean for mean, (_, high) in zip(means, ends, strict=True)])
            style: dict[str, Any] = {"color": colour, "marker": marker, "linestyle": "", "markersize": 3, "capsize": 2}
            axes.errorbar(means, places, xerr=errors, label=shortened(each.label), **style)
        axes.set_yticks(range(len(texts)), [shortened(text, 34) for text in texts])
        axes.invert_yaxis()
        axes.set_xlabel(f"{NAMES[metric]} (cosine), 95 % interval")
        axes.grid(axis="x", alpha=0.25)
        figure.legend(frameon=False, loc="outside upper left", ncols=2)
    return figure


def _subjects(measured: Sequence[Measured]) -> list[dict[str, tuple[Path, Path]]]:
    """For each subject: label -> run and its folder of pictures."""
    found: dict[str, dict[str, tuple[Path, Path]]] = {}
    for each in measured:
        found.setdefault(each.scores["subject"], {})[each.label] = (each.folder, each.images)
    return list(found.values())


def _table(measured: Sequence[Measured]) -> Table:
    names = [name for name in NAMES if any(name in each.scores["metrics"] for each in measured)]
    rows = []
    for each in measured:
        cells = [Cell(each.label, colour=look(each.label).colour), Cell(each.scores["subject"])]
        for name in names:
            found = each.scores["metrics"].get(name)
            cells.append(Cell(f"{found['mean']:.3f}", found["mean"], _ends(found)) if found else Cell(MISSING))
        rows.append(cells)
    caption = (
        "Mean over all pairs of a generated picture and a photograph (DINO, DINOv2, CLIP-I), over pictures (CLIP-T), "
        "over pairs of pictures of one prompt (LPIPS); below it the 95 % bootstrap interval. More is more alike, "
        "more faithful, more diverse."
    )
    return Table(caption, ("run", "subject", *(NAMES[name] for name in names)), rows)


def _differences(measured: Sequence[Measured]) -> list[Any]:
    """The sentences of a comparison that these runs, and no others, took part in."""
    for each in measured:
        path = each.folder / "eval" / "comparison.json"
        if not path.exists():
            continue
        found = runs.read_json(path)
        ours = {one.folder.resolve() for one in measured if one.label != BASE}
        if {Path(name).resolve() for name in found["runs"]} == ours and found["comparisons"]:
            lines = [f"{row['subject']}: {row['sentence']}" for row in found["comparisons"]]
            return ["Differences, paired by prompt and seed:", lines]
    return []


def _models(measured: Sequence[Measured]) -> list[str]:
    lines: dict[str, None] = {}
    for each in measured:
        for metric, found in each.scores["metrics"].items():
            model = found["model"]
            if "net" in model:
                files = ", ".join(f"{name} ({digest[:12]})" for name, digest in model["files"].items())
                lines[f"{NAMES[metric]}: {model['net']}, {files}"] = None
            else:
                version = f"sha256 {model['sha256'][:12]}" if model["sha256"] else f"commit {model['commit']}"
                lines[f"{NAMES[metric]}: {model['name']} ({version})"] = None
        for metric, reason in each.scores["left_out"].items():
            lines[f"{NAMES[metric]}: left out, {reason}"] = None
    return list(lines)


def _ends(found: Mapping[str, Any]) -> str:
    return "{:.3f} to {:.3f}".format(*found["interval"]) if found["interval"] else ""


def _numbers(found: Mapping[str, Any]) -> dict[str, float | None]:
    low, high = found["interval"] or (None, None)
    return {"mean": found["mean"], "low": low, "high": high}
