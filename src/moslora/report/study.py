"""The report of a study: what `moslora compare` found, as one page."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from .. import runs
from ..errors import DataError, RunError
from .command import study_command
from .figures import curve_rows
from .page import Cell, Code, Page, Picture, Section, Table, write_page
from .published import published_section, same_benchmarks
from .run_folders import commit_of, curves_section, mixers_section, read_curves, write_runs_report
from .study_figures import arms_figure, fractions_figure, parameters_figure, rates_figure
from .tables import (
    accuracy_rows,
    comparisons_table,
    result_rows,
    results_table,
    seeds_table,
    settings_table,
    sweep_rows,
)
from .texts import fraction, percent

Published = Literal["auto", "always", "never"]


def write_report(folder: Path, out: Path, published: Published = "auto") -> Path:
    """Report of a study folder; of its finished cells, without statistics, if it has none yet.

    Args:
        folder: that `moslora compare` wrote.
        out: folder of the report; made if missing. Its own files are drawn again, others never replaced.
        published: whether to show the paper's numbers; "auto" when all benchmarks have the paper's names.

    Returns:
        the HTML page.

    Raises:
        DataError: the folder is no study, or its files do not hold what they should.
        RunError: no cell is finished yet, or `out` holds foreign files.
    """
    study = runs.read_json(folder / "study.json")
    if not (folder / "statistics.json").exists():
        return write_runs_report(_finished(folder, study), out, "The study is not finished: it has no statistics yet.")
    statistics = runs.read_json(folder / "statistics.json")
    try:
        page = _page(folder, study, statistics, published)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            f"{folder / 'statistics.json'} or study.json does not hold what a report needs "
            f"({type(error).__name__}: {error}). Write them again with `moslora compare`."
        ) from error
    return write_page(page, out)


def _finished(folder: Path, study: Mapping[str, Any]) -> list[Path]:
    cells = [folder / "cells" / cell["name"] for cell in study["cells"]]
    paths = [path for path in cells if (path / "run.json").exists()]
    done = [path for path in paths if runs.read_json(path / "run.json").get("status") == "done"]
    if not done:
        raise RunError(f"No cell of the study in {folder} is finished: repeat its `moslora compare` command first.")
    return done


def _page(folder: Path, study: Mapping[str, Any], statistics: Mapping[str, Any], published: Published) -> Page:
    benchmarks = list(study["benchmarks"])
    arms = statistics["arms"]
    model = str(study["config"].get("model", "unknown model"))
    shares = sorted({arm["train_fraction"] for arm in arms}, reverse=True)
    whole = [arm for arm in arms if arm["train_fraction"] == shares[0]] if shares else []
    cells = _cells(folder, study, whole)
    curves = read_curves(cells)
    sections = [_conclusions(statistics)]
    if arms:
        sections += [
            _results(statistics, whole, benchmarks),
            *_initialisation(statistics),
            *_fractions(statistics, benchmarks, shares),
            _parameters(whole),
            *_rates(statistics, shares[0]),
            curves_section(curves, len(cells), statistics["baseline"]),
            *mixers_section({method: paths[0] for method, paths in cells.items()}),
        ]
    if published == "always" or (published == "auto" and same_benchmarks(benchmarks)):
        sections.append(published_section(statistics, benchmarks, model))
    sections += [*_failed(statistics), _done(folder, study, statistics)]
    seeds = sorted({seed for arm in arms for seed in arm["seeds"]})
    facts = [
        f"model: {model}",
        f"{len({arm['method'] for arm in arms})} methods",
        f"{len(seeds)} seeds",
        f"{len(benchmarks)} benchmarks",
        f"started {study.get('started', 'at an unknown time')}",
    ]
    data = {
        "results": result_rows(arms, benchmarks),
        "accuracies": accuracy_rows(arms),
        "sweep": sweep_rows(statistics["sweep"]),
        "losses": curve_rows(curves),
    }
    return Page(f"{str(study['task']).capitalize()} study", facts, sections, data)


def _conclusions(statistics: Mapping[str, Any]) -> Section:
    items: list[Any] = [list(statistics["conclusions"])] if statistics["conclusions"] else ["None were drawn."]
    if failed := statistics["failed"]:
        cells = "1 cell failed and is" if len(failed) == 1 else f"{len(failed)} cells failed and are"
        items.append(f"{cells} not in these numbers: see the table of failed cells.")
    return Section("Conclusions", items)


def _results(statistics: Mapping[str, Any], arms: Sequence[Any], benchmarks: Sequence[str]) -> Section:
    baseline, base = statistics["baseline"], statistics["base"]
    items: list[Any] = [
        _arms_picture(arms, baseline, base, statistics["interval"]),
        results_table(arms, benchmarks, baseline, base, statistics["interval"]),
        f"Test: {statistics['test']}. Learning rates: chosen by the {statistics['selection']}.",
    ]
    return Section("Results", [*items, *([seeds] if (seeds := seeds_table(arms, baseline)) else [])])


def _arms_picture(arms: Sequence[Any], baseline: str, base: Mapping[str, Any] | None, interval: str) -> Picture:
    ordered = sorted(arms, key=lambda arm: -arm["average"]["mean"])
    alt = "Average accuracy in percent, best first: " + ", ".join(
        f"{arm['method']} {100 * arm['average']['mean']:.1f}" for arm in ordered
    )
    caption = (
        f"Left: average accuracy; the mark is the mean, the bar its interval ({interval}), every small dot a seed. "
        f"Dashed: the mean of {baseline}. Right: the difference to {baseline}; a bar that crosses the "
        "dashed line is compatible with no difference."
        + (f" The model before adaptation: {percent(base['average'])} %." if base else "")
    )
    return Picture("arms", arms_figure(arms, baseline), alt + ".", caption)


def _initialisation(statistics: Mapping[str, Any]) -> list[Section]:
    """Is it only the initialisation? A list of one section, or empty if the study did not ask."""
    items: list[Any] = []
    for entry in statistics.get("initialisation") or []:
        gain = entry["moslora_against_lora"]
        pairs = [{"method": "moslora", "against": "lora", **gain}] if gain else []
        caption = (
            f"moslora against lora, and against arms that start the same without a mixer that learns, on "
            f"{fraction(entry['train_fraction'])} of the data. Intervals: {statistics['interval']}."
        )
        items += [entry["conclusion"], comparisons_table([*pairs, *entry["comparisons"]], caption)]
    return [Section("Is it only the initialisation?", items)] if items else []


def _fractions(statistics: Mapping[str, Any], benchmarks: Sequence[str], shares: Sequence[float]) -> list[Section]:
    arms = statistics["arms"]
    if len(shares) < 2:
        return []
    alt = f"Average accuracy of {len({arm['method'] for arm in arms})} methods at {', '.join(map(fraction, shares))}."
    caption = (
        "Average accuracy over the share of the training data; every dot a seed, lines join the means. The paper's "
        "Figure 4 shows this for LoRA and MoSLoRA."
    )
    items: list[Any] = [Picture("fractions", fractions_figure(arms), alt, caption)]
    for share in shares[1:]:
        own = [arm for arm in arms if arm["train_fraction"] == share]
        items.append(results_table(own, benchmarks, statistics["baseline"], None, statistics["interval"]))
    return [Section("Fewer training samples", items)]


def _parameters(arms: Sequence[Any]) -> Section:
    alt = "Average accuracy over trained parameters: " + ", ".join(
        f"{arm['method']} {arm['parameters']:,} parameters" for arm in arms
    )
    caption = (
        "Average accuracy over the number of trained parameters, which has a logarithmic scale. The first figure has "
        "the intervals: where they overlap, the order may be chance."
    )
    return Section("Parameters against accuracy", [Picture("parameters", parameters_figure(arms), alt + ".", caption)])


def _rates(statistics: Mapping[str, Any], share: float) -> list[Section]:
    sweep = [entry for entry in statistics["sweep"] if entry["train_fraction"] == share]
    if len({entry["learning_rate"] for entry in sweep}) < 2:
        return []
    chosen = {arm["method"]: arm["learning_rate"] for arm in statistics["arms"] if arm["train_fraction"] == share}
    alt = f"Average accuracy over the learning rate, one panel each for {', '.join(chosen)}."
    caption = (
        "Average accuracy over the learning rate. Full dots and line: test; hollow dots and dashed line, where there "
        "are any: held-out training questions (validation). Every dot is a seed. Dotted: the learning rate chosen by "
        f"the {statistics['selection']}. A choice at the edge of the sweep may not be the best there is."
    )
    return [Section("Learning rates", [Picture("rates", rates_figure(sweep, chosen), alt, caption)])]


def _cells(folder: Path, study: Mapping[str, Any], arms: Sequence[Any]) -> dict[str, list[Path]]:
    """Method -> run folders of its arm: the chosen learning rate, every seed."""
    found: dict[str, list[Path]] = {}
    for arm in arms:
        keys = ("method", "learning_rate", "train_fraction")
        cells = [cell for cell in study["cells"] if all(cell[key] == arm[key] for key in keys)]
        paths = [folder / "cells" / cell["name"] for cell in cells if cell["seed"] in arm["seeds"]]
        if paths:
            found[arm["method"]] = paths
    return found


def _failed(statistics: Mapping[str, Any]) -> list[Section]:
    if not statistics["failed"]:
        return []
    rows = [[Cell(each["cell"]), Cell(each["error"])] for each in statistics["failed"]]
    return [Section("Failed cells", [Table("Cells that ended in an error.", ("cell", "error"), rows, text=True)])]


def _done(folder: Path, study: Mapping[str, Any], statistics: Mapping[str, Any]) -> Section:
    return Section(
        "How it was done",
        [
            "To repeat the study:",
            Code(study_command(study, folder)),
            settings_table(study["config"], "Settings."),
            settings_table({**study["versions"], **commit_of(study.get("git"))}, "Versions."),
            f"Cells: {len(study['cells'])}, of which {len(statistics['failed'])} failed. Intervals: "
            f"{statistics['interval']}. Test: {statistics['test']}. Selection: {statistics['selection']}.",
        ],
    )
