"""What a study is: its settings, the cells of its grid, and the folder that holds them.

STUDY/study.json     settings, hashes of model, data and tests, and the cells
STUDY/data/          train.json and validation/<format>/test.json, split once
STUDY/cells/<name>/  one run folder a cell, with eval/ (tests) and eval-validation/ (held-out training questions)
STUDY/base/          the unadapted model: only eval-base/
STUDY/progress.jsonl one line a finished or failed cell
STUDY/logs/          what the worker processes print
STUDY/statistics.json
"""

import dataclasses
import hashlib
import itertools
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .. import runs
from ..errors import ConfigError, RunError
from ..tasks.commonsense.config import CommonsenseEvalConfig, CommonsenseTrainConfig

TASK = "commonsense"
VALIDATION = "eval-validation"
# Settings of a cell that the grid decides, and what the study calls their values.
GRID = {
    "method": "methods",
    "learning_rate": "learning_rates",
    "seed": "seeds",
    "train_fraction": "train_fractions",
}


class Cell(NamedTuple):
    """One run of the grid."""

    method: str
    learning_rate: float
    seed: int
    train_fraction: float

    @property
    def name(self) -> str:
        """Its folder below STUDY/cells."""
        return f"{slug(self.method)}/lr{self.learning_rate!r}-f{self.train_fraction!r}-seed{self.seed}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """Everything that decides the results of a study."""

    train: CommonsenseTrainConfig
    """Settings that all cells share; the grid's own are replaced in every cell."""
    evaluation: CommonsenseEvalConfig
    """Settings of the test; `run` and `into` are replaced."""
    methods: tuple[str, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    train_fractions: tuple[float, ...]
    baseline: str
    validation_size: int | None = None
    split_seed: int = 0

    def cells(self) -> list[Cell]:
        """The grid. Every arm's first seed comes before any arm's second, so that early results compare all arms."""
        axes = (self.seeds, self.train_fractions, self.learning_rates, self.methods)
        return [Cell(method, rate, seed, share) for seed, share, rate, method in itertools.product(*axes)]

    def settings(self) -> dict[str, Any]:
        """Every setting as JSON values: those of training by their own names, those of the test under `evaluation`."""
        train = {key: value for key, value in dataclasses.asdict(self.train).items() if key not in GRID}
        evaluation = {key: value for key, value in dataclasses.asdict(self.evaluation).items() if key not in _FILLED_IN}
        own = {
            "validation_questions": self.validation_size,
            "split_seed": self.split_seed,
            **{name: getattr(self, name) for name in GRID.values()},
        }
        return json.loads(json.dumps({**train, "evaluation": evaluation, **own}, default=str))


_FILLED_IN = ("run", "into", "base_only", "benchmarks")


def slug(method: str) -> str:
    """A method's name as the name of a folder; `file:CONFIG.json` keeps the file's stem and a hash of its path."""
    if not method.startswith("file:"):
        return method
    path = Path(method.removeprefix("file:"))
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem)
    return f"file-{stem}-{hashlib.sha256(str(path).encode()).hexdigest()[:6]}"


def check(study: Study) -> None:
    """Raise ConfigError that lists what cannot be used in the grid itself."""
    problems = []
    for name in GRID.values():
        values = getattr(study, name)
        if not values:
            problems.append(f"{name} is empty: name at least one")
        problems += [f"{name} has {value!r} twice" for value in sorted({v for v in values if values.count(v) > 1})]
    if study.baseline not in study.methods:
        problems.append(
            f"the baseline {study.baseline!r} is not among the methods {', '.join(study.methods)}: add it, or choose "
            "another baseline"
        )
    if study.validation_size is not None and study.validation_size < 0:
        problems.append(f"validation_size is {study.validation_size}: it must not be negative")
    if problems:
        raise ConfigError("The study cannot be run:\n  " + "\n  ".join(problems))


def record_study(study: Study, folder: Path, inputs: Mapping[str, Any], command: str = "") -> dict[str, Any]:
    """Write study.json, or make sure that what is there was begun with the same settings, and add this grid to it.

    Args:
        study: what this command asks for.
        folder: of the study, locked by this process.
        inputs: hashes of model, data and tests.
        command: the command line, which joins those of earlier calls.

    Returns:
        the content of study.json. Its cells are those of this command and of all earlier ones.

    Raises:
        RunError: the folder holds another study, or something else.
    """
    path = folder / "study.json"
    settings = study.settings()
    cells = {cell.name: {"name": cell.name, **cell._asdict()} for cell in study.cells()}
    old: dict[str, Any] = {}
    if path.exists():
        old = runs.read_json(path)
        now, before = (_without_grid(config) for config in (settings, old["config"]))
        parts = {"baseline": study.baseline, "benchmarks": list(study.evaluation.benchmarks), "inputs": dict(inputs)}
        runs.refuse_differences(folder, {**old, "config": before}, {"config": now, **parts})
        for axis in GRID.values():
            settings[axis] = list(dict.fromkeys([*old["config"][axis], *settings[axis]]))
        cells = {cell["name"]: cell for cell in old["cells"]} | cells
    elif foreign := sorted(entry.name for entry in folder.iterdir() if entry.name[0] != "."):
        raise RunError(
            f"{folder} is not the folder of a study: it has no study.json, but {', '.join(foreign[:5])}. Nothing was "
            "changed; choose another --out."
        )
    record = {
        "task": TASK,
        "config": settings,
        "baseline": study.baseline,
        "benchmarks": list(study.evaluation.benchmarks),
        "inputs": dict(inputs),
        "cells": list(cells.values()),
        "command": "\n".join(dict.fromkeys([*filter(None, old.get("command", "").split("\n")), command])),
        "versions": runs.versions(),
        "git": runs.git_state(),
        "started": old.get("started", runs.now()),
    }
    runs.write_json(path, record)
    return record


def is_finished(folder: Path, record: Mapping[str, Any], name: str) -> bool:
    """Whether the cell `name` of the study is trained and has answered everything."""
    cell = folder / "cells" / name
    if not runs.is_done(cell):
        return False
    wanted = {"eval": record["benchmarks"], VALIDATION: validation_names(folder)}
    return all(_scored(cell / part, names) for part, names in wanted.items())


def base_is_finished(folder: Path, record: Mapping[str, Any]) -> bool:
    """Whether the unadapted model has answered all tests."""
    return _scored(folder / "base" / "eval-base", record["benchmarks"])


def validation_names(folder: Path) -> list[str]:
    """Names of the groups of held-out training questions; none where the training items have no answers."""
    return sorted(path.parent.name for path in (folder / "data" / "validation").glob("*/test.json"))


def _without_grid(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in GRID.values()}


def _scored(folder: Path, names: list[str]) -> bool:
    path = folder / "scores.json"
    return not names or (path.exists() and set(names) <= set(runs.read_json(path)["benchmarks"]))
