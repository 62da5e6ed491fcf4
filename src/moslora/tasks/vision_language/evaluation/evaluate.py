"""Let a trained run answer the questions of vision-language benchmarks, and score the answers.

    RUN/eval/eval.json                      settings and hashes of adapter and data
    RUN/eval/predictions/<benchmark>.jsonl  every row of the benchmark, without its image, with the model's output
    RUN/eval/extracted/<benchmark>.jsonl    what was read in each output, and by what
    RUN/eval/judge/<benchmark>.jsonl        what a judge was asked, and replied
    RUN/eval/submissions/<benchmark>.xlsx   for the leaderboard, where the answers are not public
    RUN/eval/scores.json                    scores
    RUN/eval/unparsed.md                    outputs that could not be read

Every batch reaches the disk before the next begins, so an interrupted evaluation goes on where it stopped.
"""

import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from .... import runs
from ....errors import ConfigError, MoSLoRAWarning, RunError
from ...evaluation import record_settings
from ...models import trained_folder
from ...progress import progress_bar
from ..projector import PROJECTOR_FILE
from .asked import asked_rows, guessing, unit
from .asking import Answerer, answer_in_batches
from .benchmarks import MAX_NEW_TOKENS, benchmark_file, file_hashes, find_benchmark, is_published, kind_of
from .config import VisionEvalConfig
from .judge import Judge
from .scoring import TASK, predictions_file, write_scores
from .tsv import read_rows


def evaluate(config: VisionEvalConfig, load: Callable[[VisionEvalConfig, dict[str, Any]], Answerer]) -> dict[str, Any]:
    """Answer what is still unanswered, and score.

    Args:
        config: all settings.
        load: makes the answerer from the settings and the run's run.json; called only if something is unanswered.

    Returns:
        the content of scores.json, see `scoring.write_scores`.

    Raises:
        RunError: the run is of another task or not finished, the folder holds an evaluation with other settings or
            data, or the judge does not answer.
        DataError: a benchmark's file is missing or cannot be used.
        ConfigError: settings that cannot be used.
    """
    _check(config)
    judge, leaderboard = _judge(config), _leaderboard(config)
    record = runs.finished_record(config.run)
    if record["task"] != TASK:
        raise RunError(f"{config.run} is a run of the task {record['task']!r}: expected one of `moslora train {TASK}`.")
    files = {name: benchmark_file(config.data, name) for name in config.benchmarks}
    folder = results_folder(config)
    described, unanswered = {}, {}
    for name, path in files.items():
        described[name], unanswered[name] = _look_at(name, path, config)
    _record_settings(folder, config, record, described)
    for name in files:
        unanswered[name] -= _answered(folder, name)
    if any(unanswered.values()):
        _answer(config, load(config, record), folder, files, unanswered)
    with progress_bar() as bar:
        tasks: dict[str, Any] = {}

        def done(name: str, number: int, count: int) -> None:
            if name not in tasks:
                tasks[name] = bar.add_task(f"judge: {name}", total=count, note="")
            bar.update(tasks[name], completed=number)

        return write_scores(folder, judge, leaderboard, done)


def results_folder(config: VisionEvalConfig) -> Path:
    """The folder that an evaluation fills."""
    return config.run / (config.into or ("eval-base" if config.base_only else "eval"))


def _check(config: VisionEvalConfig) -> None:
    problems = [
        f"{name} is {getattr(config, name)}: it must not be negative"
        for name in ("limit", "max_new_tokens")
        if getattr(config, name) < 0
    ]
    problems += [
        f"{name} is {getattr(config, name)}: it must be above 0"
        for name in ("batch_size", "judge_workers")
        if getattr(config, name) < 1
    ]
    if not config.benchmarks:
        problems.append("benchmarks is empty: name at least one")
    if config.judge_model and not config.judge_url:
        problems.append("judge_model needs the address of its endpoint: give judge_url as well")
    if problems:
        raise ConfigError("The settings cannot be used:\n  " + "\n  ".join(problems))


def _judge(config: VisionEvalConfig) -> Judge | None:
    if not config.judge_url:
        return None
    return Judge(config.judge_url, config.judge_model, config.judge_key_env, workers=config.judge_workers)


def _leaderboard(config: VisionEvalConfig) -> dict[str, float]:
    """Benchmark -> score in [0, 1] that its leaderboard reported."""
    found = {}
    for entry in config.leaderboard:
        name, _, text = entry.partition("=")
        row = find_benchmark(name)
        try:
            percent = float(text)
        except ValueError:
            percent = -1.0
        if row is None or row.answers or name not in config.benchmarks or not 0 <= percent <= 100:
            raise ConfigError(
                f"leaderboard {entry!r}: expected NAME=PERCENT, with a NAME of --benchmarks whose answers are hidden "
                "(MMBench_TEST_EN, MMBench_TEST_CN) and PERCENT from 0 to 100."
            )
        found[name] = percent / 100
    return found


def _look_at(name: str, path: Path, config: VisionEvalConfig) -> tuple[dict[str, Any], set[str]]:
    """What is recorded of a benchmark (which rows, how they are asked, what guessing reaches), and its indices."""
    found = read_rows(path)
    kind = kind_of(name, found, config.kind)
    rows = asked_rows(name, path, found, kind, config.limit)
    published, hashes = find_benchmark(name), file_hashes(path)
    count = len({unit(row, kind) for row in rows}) if kind == "circular" else len(rows)
    if published and not config.limit and count != published.questions:
        warnings.warn(
            f"{path} holds {count} questions, {name} as published {published.questions}: scores are of what is there.",
            MoSLoRAWarning,
            stacklevel=2,
        )
    described = {
        "kind": kind,
        "rows": len(rows),
        "questions": count,
        "rotations": ("of the file" if len(found) > count else "made") if kind == "circular" else None,
        "chance": guessing(rows, kind),
        "max_new_tokens": config.max_new_tokens or MAX_NEW_TOKENS[kind],
        "version": published.version if published else None,
        **hashes,
        "published": is_published(name, hashes["md5"]),
    }
    return described, {row["index"] for row in rows}


def _record_settings(folder: Path, config: VisionEvalConfig, record: dict[str, Any], data: dict[str, Any]) -> None:
    """Write eval.json, or make sure that what is there agrees with it. More benchmarks may join later."""
    trained = {} if config.base_only else _trained(config.run, record)
    settings = {"decoding": "greedy", "trained": trained, "limit": config.limit}
    record_settings(folder, settings, data)


def _trained(run: Path, record: dict[str, Any]) -> dict[str, str]:
    """Hashes of what the run trained: its adapter or model, its projector, or both."""
    folder, projector = trained_folder(run, record), run / PROJECTOR_FILE
    found = {folder.name: runs.fingerprint(folder)["sha256"]} if folder.is_dir() else {}
    return found | ({"projector": runs.file_sha256(projector)} if projector.exists() else {})


def _answered(folder: Path, name: str) -> set[str]:
    """Indices of the rows that have an answer; cuts off what a crash left half-written."""
    path = predictions_file(folder, name)
    rows = runs.read_rows(path)
    if path.exists():
        runs.rewrite_rows(path, rows)
    return {row["index"] for row in rows}


def _answer(
    config: VisionEvalConfig,
    answerer: Answerer,
    folder: Path,
    files: Mapping[str, Path],
    unanswered: Mapping[str, set[str]],
) -> None:
    with progress_bar() as bar:
        for name, path in files.items():
            if not unanswered[name]:
                continue
            found = read_rows(path, images=True)
            kind = kind_of(name, found, config.kind)
            rows = asked_rows(name, path, found, kind, config.limit)
            order = {row["index"]: place for place, row in enumerate(rows)}
            waiting = [row for row in rows if row["index"] in unanswered[name]]
            task = bar.add_task(name, total=len(rows), completed=len(rows) - len(waiting), note="")
            most = config.max_new_tokens or MAX_NEW_TOKENS[kind]
            out = predictions_file(folder, name)
            for answers in answer_in_batches(name, waiting, kind, answerer, config.batch_size, most):
                runs.append_rows(out, answers)
                bar.update(task, advance=len(answers))
            runs.rewrite_rows(out, sorted(runs.read_rows(out), key=lambda row: order[row["index"]]))
