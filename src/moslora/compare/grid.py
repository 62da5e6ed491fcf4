"""Bring every cell of a study to its end: in parallel, over crashes, and whatever single cells do."""

import contextlib
import dataclasses
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from .. import methods, runs
from ..errors import ConfigError
from ..locks import lock_folder
from ..tasks.commonsense import attach, model
from ..tasks.commonsense import train as training
from ..tasks.commonsense.config import CommonsenseTrainConfig
from ..tasks.commonsense.config import check as check_training
from ..tasks.commonsense.evaluate import benchmark_file
from ..tasks.commonsense.training_set import TrainingSet
from .heldout import LARGEST, SHARE, hold_out
from .progress import GridProgress
from .results import latest_progress
from .study import (
    VALIDATION,
    Cell,
    Study,
    base_is_finished,
    check,
    is_finished,
    record_study,
    validation_names,
)
from .worker import Job
from .workers import Pool, gpus

BASE = "base"
# Settings of the data that are applied to the whole study, before questions are held out.
_DONE_FOR_ALL: dict[str, Any] = {"columns": (), "expected_samples": 0, "overlap_with": "", "drop_overlap": False}


class Outcome(NamedTuple):
    """How a command ended: cells of its grid that are done, and those that failed with what went wrong."""

    done: int
    failed: dict[str, str]


def run_grid(study: Study, folder: Path, jobs: int, command: str = "") -> Outcome:
    """Train and evaluate all cells that are not finished, and the unadapted model.

    Args:
        study: what is asked for.
        folder: of the study: new, empty, or one begun with the same settings. Its grid may be smaller.
        jobs: worker processes.
        command: the command line that asks for this, kept in study.json.

    Raises:
        ConfigError: settings that cannot be used.
        DataError: training or test files that cannot be used.
        RunError: the folder holds something else, or another process is at work in it.
        KeyboardInterrupt: after Ctrl-C or SIGTERM. All workers are ended; the same call goes on.
    """
    if jobs < 1:
        raise ConfigError(f"jobs is {jobs}: it must be at least 1.")
    check_cells(study)
    found = _load_data(study)
    inputs = _inputs(study, found)
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(folder)
    try:
        record = record_study(study, folder, inputs, command)
        _split(study, found, folder)
        cells = study.cells()
        todo = [cell for cell in cells if not is_finished(folder, record, cell.name)]
        work = [] if base_is_finished(folder, record) else [_base_job(study, folder)]
        work += [_job(study, cell, folder) for cell in todo]
        failed = _work_off(work, folder, jobs, done=len(cells) - len(todo), total=len(cells))
        return Outcome(len(cells) - len(failed.keys() - {BASE}), failed)
    finally:
        if lock is not None:
            os.close(lock)


def check_cells(study: Study) -> None:
    """Raise ConfigError for a grid, a method or a setting that no cell could use."""
    check(study)
    if not study.train.data:
        raise ConfigError("No training data: give files with --data.")
    for cell in study.cells():
        config = cell_config(study, cell, study.train.data)
        check_training(config)
    base = model.load_config(study.train.model, study.train.trust_remote_code)
    for method in study.methods:
        config = method_config(study, method)
        attach.adapter_config(config)
        attach.match_rank(config, base)


def cell_config(study: Study, cell: Cell, files: tuple[str, ...]) -> CommonsenseTrainConfig:
    """Training settings of a cell on these files."""
    return dataclasses.replace(method_config(study, cell.method), data=files, **cell._asdict())


def method_config(study: Study, method: str) -> CommonsenseTrainConfig:
    """The study's training settings with this method, which has its own size if there is no rank to match it with."""
    own_size = method == methods.FULL or method.startswith(methods.FILE)
    return dataclasses.replace(study.train, method=method, match="" if own_size else study.train.match)


def _load_data(study: Study) -> TrainingSet:
    """The training items, looked through for questions of the tests."""
    overlap_with = study.train.overlap_with or str(study.evaluation.data)
    return training.load_data(dataclasses.replace(study.train, overlap_with=overlap_with))


def _inputs(study: Study, found: TrainingSet) -> dict[str, Any]:
    tests = study.evaluation
    return {
        "model": model.identity(study.train.model),
        **found.inputs,
        "tests": {name: runs.file_sha256(benchmark_file(tests.data, name)) for name in tests.benchmarks},
    }


def _split(study: Study, found: TrainingSet, folder: Path) -> None:
    """Hold questions out, once; split.json is written last."""
    items = found.items
    done = folder / "data" / "split.json"
    if done.exists():
        return
    held_out = hold_out(items, folder / "data", size=study.validation_size, seed=study.split_seed)
    loss_samples = 0
    if not held_out and study.validation_size != 0:
        loss_samples = study.train.validation_size or study.validation_size or min(LARGEST, int(SHARE * len(items)))
    if not held_out and not (loss_samples or study.train.validation_size) and len(study.learning_rates) > 1:
        raise ConfigError(
            "There is nothing to choose a learning rate on: no question is held out. Give a --validation-size above "
            "0, or one learning rate."
        )
    runs.write_json(folder / "data" / "data.json", found.facts)
    runs.write_json(done, {"items": len(items), "held_out": held_out, "loss_samples": loss_samples})


def _job(study: Study, cell: Cell, folder: Path) -> Job:
    out = folder / "cells" / cell.name
    config = cell_config(study, cell, (str(folder / "data" / "train.json"),))
    config = dataclasses.replace(config, **_DONE_FOR_ALL)
    loss_samples = runs.read_json(folder / "data" / "split.json")["loss_samples"]
    if loss_samples:
        # The training items have no answers to compare with: the loss on samples held out takes their place.
        config = dataclasses.replace(config, validation_size=loss_samples)
    evaluations = [dataclasses.replace(study.evaluation, run=out)]
    if names := validation_names(folder):
        held_out = dataclasses.replace(evaluations[0], data=folder / "data" / "validation", benchmarks=tuple(names))
        evaluations.append(dataclasses.replace(held_out, limit=0, into=VALIDATION))
    return Job(cell.name, out, config, tuple(evaluations))


def _base_job(study: Study, folder: Path) -> Job:
    """The unadapted model's test. An evaluation wants a run: this one says what the model is, and trained nothing."""
    out = folder / BASE
    record = {"task": "commonsense", "status": "done", "trained": False, "config": dataclasses.asdict(study.train)}
    runs.write_json(out / "run.json", record)
    return Job(BASE, out, None, (dataclasses.replace(study.evaluation, run=out, base_only=True),))


def _work_off(work: list[Job], folder: Path, jobs: int, *, done: int, total: int) -> dict[str, str]:
    """Do the work; returns what failed."""
    failed: dict[str, str] = {}
    if not work:
        return failed
    past = latest_progress(folder)
    with (
        _terminated_like_ctrl_c(),
        GridProgress(jobs, done, total, past) as shown,
        Pool(min(jobs, len(work)), folder / "logs", gpus()) as pool,
    ):
        shown.waiting = {job.name: _method(job) for job in work}
        for job, answer in pool.do(work, shown.start):
            if answer.error:
                failed[job.name] = answer.error
            row = {
                "cell": job.name,
                "method": _method(job),
                "status": "failed" if answer.error else "done",
                "seconds": round(answer.seconds, 3),
                "error": answer.error,
                "time": runs.now(),
            }
            runs.append_rows(folder / "progress.jsonl", [row])
            shown.finish(row, _score(job.folder))
    return failed


def _method(job: Job) -> str:
    return job.train.method if job.train else BASE


def _score(folder: Path) -> float | None:
    for name in ("eval", "eval-base"):
        if (path := folder / name / "scores.json").exists():
            return runs.read_json(path)["mean"]
    return None


@contextlib.contextmanager
def _terminated_like_ctrl_c() -> Iterator[None]:
    """Within the block, SIGTERM raises KeyboardInterrupt, as Ctrl-C does. Only the main thread can arrange that."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
