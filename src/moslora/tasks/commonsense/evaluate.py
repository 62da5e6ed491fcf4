"""Let a trained run answer the questions of benchmarks, and score the answers.

    RUN/eval/eval.json                      settings and hashes of adapter and data
    RUN/eval/predictions/<benchmark>.jsonl  index, output, prediction and label of every question
    RUN/eval/scores.json                    accuracies
    RUN/eval/unparsed.md                    outputs without an answer word

Every batch reaches the disk before the next begins, so an interrupted evaluation goes on where it stopped.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from ... import runs
from ...errors import DataError, UnsupportedError
from ..evaluation import record_settings
from ..models import resolve_dtype, trained_folder
from ..progress import progress_bar
from . import model
from .answering import Answerer
from .benchmarks import content_sha256, find_benchmark, is_published
from .config import CommonsenseEvalConfig
from .data import Item, read_items
from .outcome import predictions_file, write_scores
from .score import answer_words, chance

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def evaluate(config: CommonsenseEvalConfig) -> dict[str, Any]:
    """Answer what is still unanswered, and score.

    Args:
        config: all settings.

    Returns:
        the content of scores.json, see `outcome.write_scores`.

    Raises:
        RunError: the run is not finished, or the folder holds an evaluation with other settings or data.
        DataError: a benchmark's file is missing or cannot be used.
        UnsupportedError: the model or its adapter cannot be used with these settings.
    """
    record = runs.finished_record(config.run)
    files = {name: benchmark_file(config.data, name) for name in config.benchmarks}
    items = {name: read_items(path, needs=("instruction", "answer")) for name, path in files.items()}
    if config.limit:
        items = {name: each[: config.limit] for name, each in items.items()}
    folder = results_folder(config)
    _record_settings(folder, config, record, files, items)
    unanswered = {name: _unanswered(folder, name, len(each)) for name, each in items.items()}
    if any(unanswered.values()):
        _answer(config, record, folder, items, unanswered)
    return write_scores(folder)


def results_folder(config: CommonsenseEvalConfig) -> Path:
    """The folder that an evaluation fills."""
    return config.run / (config.into or ("eval-base" if config.base_only else "eval"))


def benchmark_file(data: Path, name: str) -> Path:
    """The file DATA/NAME/test.json or test.json.gz.

    Raises:
        DataError: there is none.
    """
    for suffix in (".json", ".json.gz"):
        if (path := data / name / f"test{suffix}").is_file():
            return path
    found = sorted(path.parent.name for path in data.glob("*/test.json*"))
    raise DataError(
        f"No benchmark {name!r}: expected {data / name / 'test.json'} or test.json.gz. "
        f"Found in {data}: {', '.join(found) or 'none'}."
    )


def _record_settings(
    folder: Path,
    config: CommonsenseEvalConfig,
    record: dict[str, Any],
    files: dict[str, Path],
    items: dict[str, list[Item]],
) -> None:
    """Write eval.json, or make sure that what is there agrees with it. More benchmarks may join later."""
    trained = trained_folder(config.run, record)
    settings = {
        "decoding": config.decoding,
        "max_new_tokens": None if config.decoding == "ranking" else config.max_new_tokens,
        "merged": _merges(config, record),
        "adapter": None if config.base_only else runs.fingerprint(trained)["sha256"],
    }
    data = {name: _describe(name, path, items[name]) for name, path in files.items()}
    record_settings(folder, settings, data)


def _describe(name: str, path: Path, items: list[Item]) -> dict[str, Any]:
    """What is recorded of a benchmark: which questions, and what guessing would reach on them."""
    row, sha256 = find_benchmark(name), content_sha256(path)
    return {
        "questions": len(items),
        "chance": chance(items, answer_words(name, items)),
        "version": row.version if row else None,
        "sha256": sha256,
        "published": is_published(name, sha256),
    }


def _unanswered(folder: Path, name: str, count: int) -> list[int]:
    """Indices of the questions that have no prediction yet; cuts off what a crash left half-written."""
    path = predictions_file(folder, name)
    rows = runs.read_rows(path)
    if path.exists():
        runs.rewrite_rows(path, sorted(rows, key=lambda row: row["index"]))
    return sorted(set(range(count)) - {row["index"] for row in rows})


def _answer(
    config: CommonsenseEvalConfig,
    record: dict[str, Any],
    folder: Path,
    items: dict[str, list[Item]],
    unanswered: dict[str, list[int]],
) -> None:
    trained = record["config"]
    answerer = Answerer(
        _load(config, record),
        model.load_tokenizer(trained["model"], trained["trust_remote_code"]),
        decoding=config.decoding,
        prompt=trained.get("prompt", "authors"),  # runs of 0.1 did not say
        max_new_tokens=config.max_new_tokens,
        batch_size=config.batch_size,
        early_stop=config.early_stop,
    )
    with progress_bar() as bar:
        for name, indices in unanswered.items():
            words = answer_words(name, items[name])
            task = bar.add_task(name, total=len(items[name]), completed=len(items[name]) - len(indices), note="")
            right = done = 0
            for rows in answerer.answer(items[name], words, indices):
                runs.append_rows(predictions_file(folder, name), rows)
                right += sum(row["prediction"] == row["label"] for row in rows)
                done += len(rows)
                bar.update(task, advance=len(rows), note=f"accuracy {right / done:.1%}")
            _unanswered(folder, name, len(items[name]))  # leaves the file in the order of the questions


def _merges(config: CommonsenseEvalConfig, record: dict[str, Any]) -> bool:
    """Whether there is an adapter that is to be folded into the base."""
    if config.base_only or trained_folder(config.run, record).name != "adapter":
        return False
    exact = resolve_dtype(record["config"]["dtype"]) == torch.float32
    return config.merge == "yes" or (config.merge == "auto" and exact)


def _load(config: CommonsenseEvalConfig, record: dict[str, Any]) -> "PreTrainedModel":
    trained = record["config"]
    dtype = resolve_dtype(trained["dtype"])
    if config.base_only:
        loaded = model.load_base(trained["model"], dtype, trained["trust_remote_code"])
    else:
        loaded = model.load_finished(config.run, record, dtype)
    if _merges(config, record):
        loaded = _merged(loaded, config)
    return loaded.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _merged(adapted: Any, config: CommonsenseEvalConfig) -> "PreTrainedModel":
    try:
        return adapted.merge_and_unload()
    except (AttributeError, NotImplementedError) as error:
        if config.merge == "auto":
            return adapted
        raise UnsupportedError(f"This kind of adapter cannot be merged: {error}. Choose --merge auto or no.") from error
