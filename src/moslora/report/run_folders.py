"""The report of single runs: their table, their losses, their mixers. No statistics."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from .. import runs
from ..errors import ConfigError, DataError
from .colours import look
from .figures import SMOOTHING, Curve, accuracies_figure, curve_rows, losses_figure, read_curve
from .mixers import mixers_by_method, read_mixers
from .page import Cell, Code, Page, Picture, Section, Table, write_page
from .subject import subject_rows, subject_sections
from .summary import Summary, summarize, summarize_base, table
from .tables import settings_table
from .texts import rate
from .vision import vision_rows, vision_sections

MOST_ACCURACIES = 40  # runs times benchmarks in one figure
MOST_PANELS = 24  # labels in a figure that has a panel for each
# Settings that tell runs of one method apart -> their short names.
_TOLD_APART = {"learning_rate": "lr", "train_fraction": "data", "rank": "r", "seed": "seed"}


def write_runs_report(folders: Sequence[Path], out: Path, note: str | None = None) -> Path:
    """Report of finished runs, evaluated or not.

    Args:
        folders: of the runs.
        out: folder of the report; made if missing.
        note: a first sentence.

    Returns:
        the HTML page.

    Raises:
        DataError: a folder is not a run folder.
        RunError: a run is not finished, or `out` holds foreign files.
    """
    named = dict(zip(_labels(folders), folders, strict=True))
    records = {label: runs.finished_record(folder) for label, folder in named.items()}
    summaries = [summarize(folder, label) for label, folder in named.items()]
    if (folders[0] / "eval-base" / "scores.json").exists():
        summaries.insert(0, summarize_base(folders[0]))
    curves = read_curves({label: [folder] for label, folder in named.items()})
    sections = [
        Section("Results", [*([note] if note else []), *_results(summaries)]),
        *vision_sections(named),
        *subject_sections(named),
        curves_section(curves, len(named)),
        *mixers_section(named),
        Section("How it was done", _done(records, folders, out)),
    ]
    one = next(iter(records.values()))
    facts = [f"{len(folders)} run{'s' if len(folders) > 1 else ''}", f"model: {one['config'].get('model')}"]
    drawn = {"results": _rows(summaries), "losses": curve_rows(curves)}
    data = drawn | vision_rows(named) | subject_rows(named)
    page = Page("Runs of moslora", facts, sections, data)
    return write_page(page, out)


def read_curves(folders: Mapping[str, Sequence[Path]]) -> dict[str, list[Curve]]:
    """What the runs of every label have logged; labels whose runs logged nothing, or are not here, are left out."""
    found = {label: [curve for path in paths if (curve := _curve(path))] for label, paths in folders.items()}
    return {label: curves for label, curves in found.items() if curves}


def curves_section(curves: Mapping[str, Sequence[Curve]], asked: int, reference: str | None = None) -> Section:
    """Training losses.

    Args:
        curves: label -> one curve a run.
        asked: number of labels that should have curves.
        reference: the label to draw behind the others; the first by default.
    """
    missing = asked - len(curves)
    notes = [f"Not drawn: {missing} of {asked}, whose run folders with logged losses are not here."] if missing else []
    if not curves:
        return Section("Training loss", notes)
    if reference is None or reference not in curves:
        reference = next(iter(curves))
    shown = dict(list(curves.items())[:MOST_PANELS])
    shown[reference] = curves[reference]
    if len(shown) < len(curves):
        notes.append(f"Shown: {len(shown)} of {len(curves)}. losses.csv has all.")
    alt = f"Training loss over optimizer steps, one panel each for {', '.join(shown)}."
    caption = (
        "Training loss over optimizer steps, smoothed (exponential mean, weight of the past "
        f"{SMOOTHING}). Thin lines: one run each; thick line: their mean; dashed: the mean of {reference}."
    )
    return Section("Training loss", [Picture("losses", losses_figure(shown, reference), alt, caption), *notes])


def mixers_section(folders: Mapping[str, Path]) -> list[Section]:
    """Heat maps of the mixers that were learned, as a list of one section; empty if there are none."""
    adapters = {label: folder / "adapter" for label, folder in folders.items()}
    adapters = {label: folder for label, folder in adapters.items() if (folder / "adapter_model.safetensors").exists()}
    mixers = {label: found for label, folder in adapters.items() if (found := read_mixers(folder))}
    if not mixers:
        return []
    shown = dict(list(mixers.items())[:MOST_PANELS])
    counts = sorted({len(each) for each in shown.values()})
    alt = f"Heat maps of the mixers that {', '.join(shown)} learned."
    caption = (
        "The learned mixers M after training, of one run a row; red is positive, blue negative, white zero, and every "
        f"row has a scale of its own. Layers: the first, the last and some between of {' or '.join(map(str, counts))}."
        + (f" Shown: {len(shown)} of {len(mixers)}." if len(shown) < len(mixers) else "")
    )
    return [Section("Mixers", [Picture("mixers", mixers_by_method(shown), alt, caption)])]


def _curve(folder: Path) -> Curve | None:
    try:
        return read_curve(folder)
    except DataError:
        return None


def _results(summaries: Sequence[Summary]) -> list[Any]:
    header, *rows = table(summaries)
    cells = []
    for summary, row in zip(summaries, rows, strict=True):
        colour = look(summary.label).colour if summary.parameters else None
        cells.append([Cell(row[0], colour=colour), *(Cell(text) for text in row[1:])])
    names = {name for summary in summaries for name in summary.benchmarks}
    caption = "One run a row."
    if names:
        caption += " Accuracies are of one seed: they cannot say which method is better."
    items: list[Any] = [Table(caption, header, cells, wide=len(header) > 8)]
    evaluated = [summary for summary in summaries if summary.benchmarks]
    if names and len(names) * len(evaluated) <= MOST_ACCURACIES:
        alt = f"Accuracy of {', '.join(summary.label for summary in evaluated)} on {', '.join(sorted(names))}."
        caption = "Accuracy with its 95 % interval over the questions (Wilson); it does not cover the choice of seed."
        items.append(Picture("accuracies", accuracies_figure(evaluated), alt, caption))
    return items


def _done(records: Mapping[str, Mapping[str, Any]], folders: Sequence[Path], out: Path) -> list[Any]:
    first = next(iter(records.values()))
    items: list[Any] = [
        settings_table(first["config"], "Settings of the first run; the recipe.toml in a run's folder repeats it.")
    ]
    if "versions" in first:
        items.append(settings_table(first["versions"] | commit_of(first.get("git")), "Versions."))
    words = ["moslora", "report", *map(str, folders), "--out", str(out)]
    return [*items, "To draw this report again:", Code(shlex.join(words))]


def commit_of(git: Mapping[str, Any] | None) -> dict[str, str]:
    """The commit of a run, for a table of versions; empty outside a repository."""
    if not git:
        return {}
    return {"commit": f"{git.get('commit')}{' with uncommitted changes' if git.get('dirty') else ''}"}


def _rows(summaries: Sequence[Summary]) -> list[dict[str, Any]]:
    names = list(dict.fromkeys(name for summary in summaries for name in summary.benchmarks))
    return [
        {
            "run": summary.label,
            "parameters": summary.parameters,
            "seconds": summary.seconds,
            "loss": summary.loss,
            **{name: summary.benchmarks.get(name, {}).get("accuracy") for name in names},
            "mean": summary.mean,
        }
        for summary in summaries
    ]


def _labels(folders: Sequence[Path]) -> list[str]:
    """A name a run: its method, with what else is not the same in all of them."""
    configs = [runs.finished_record(folder).get("config", {}) for folder in folders]
    differing = [key for key in _TOLD_APART if len({str(config.get(key)) for config in configs}) > 1]
    labels, whole = [], []
    for config, folder in zip(configs, folders, strict=True):
        method = str(config.get("method", "unknown method"))
        facts = [f"{_TOLD_APART[key]} {_plain(config.get(key))}" for key in differing]
        labels.append(f"{method} ({', '.join(facts)})" if facts else method)
        whole.append(f"{method} ({folder})")
    for names in (labels, whole):
        if len(set(names)) == len(names):
            return names
    raise ConfigError("The same run folder was named twice: name each once.")


def _plain(value: Any) -> str:
    return rate(value) if isinstance(value, float) and value < 0.01 else str(value)
