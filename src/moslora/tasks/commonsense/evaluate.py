"""Let a trained run answer the questions of benchmarks, and score the answers.

    RUN/eval/eval.json                      settings and hashes of adapter and data
    RUN/eval/predictions/<benchmark>.jsonl  index, output, prediction and label of every question
    RUN/eval/scores.json                    accuracies

Every batch reaches the disk before the next begins, so an interrupted evaluation goes on where it stopped.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch

from ... import runs
from ...errors import DataError, RunError
from ..progress import progress_bar
from . import model
from .config import CommonsenseEvalConfig
from .data import Item, read_items
from .prompt import evaluation_ids, stop_ids
from .score import answer_words, extract_answer, score

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Question(NamedTuple):
    """One item, ready for the model."""

    number: int
    ids: list[int]
    label: str


def evaluate(config: CommonsenseEvalConfig) -> dict[str, Any]:
    """Answer what is still unanswered, and score.

    Args:
        config: all settings.

    Returns:
        the content of scores.json: `benchmarks` (name -> `score.score`) and `mean`, their unweighted mean accuracy.

    Raises:
        RunError: the run is not finished, or the folder holds an evaluation with other settings or data.
        DataError: a benchmark's file is missing or cannot be used.
    """
    record = runs.finished_record(config.run)
    files = {name: benchmark_file(config.data, name) for name in config.benchmarks}
    items = {name: read_items(path, needs=("instruction", "answer")) for name, path in files.items()}
    if config.limit:
        items = {name: each[: config.limit] for name, each in items.items()}
    folder = config.run / (config.into or ("eval-base" if config.base_only else "eval"))
    _record_settings(folder, config, record, files, items)
    unanswered = {name: _unanswered(folder, name, len(each)) for name, each in items.items()}
    if any(unanswered.values()):
        _answer(config, record, folder, items, unanswered)
    return _write_scores(folder)


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
    trained = model.trained_folder(config.run, record)
    settings = {
        "num_beams": config.num_beams,
        "max_new_tokens": config.max_new_tokens,
        "adapter": None if config.base_only else runs.fingerprint(trained)["sha256"],
    }
    data = {name: {"sha256": runs.file_sha256(path), "questions": len(items[name])} for name, path in files.items()}
    path = folder / "eval.json"
    if path.exists():
        old = runs.read_json(path)
        data = old["data"] | data
        runs.refuse_differences(folder, {**old, "data": data | old["data"]}, {"settings": settings, "data": data})
    runs.write_json(path, {"settings": settings, "data": data})


def _predictions(folder: Path, name: str) -> Path:
    return folder / "predictions" / f"{name}.jsonl"


def _unanswered(folder: Path, name: str, count: int) -> list[int]:
    """Indices of the questions that have no prediction yet; cuts off what a crash left half-written."""
    path = _predictions(folder, name)
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
    tokenizer = model.load_tokenizer(trained["model"], trained["trust_remote_code"])
    adapted = _load(config, record)
    prompt = trained.get("prompt", "authors")  # runs of 0.1 did not say
    adapted.generation_config.eos_token_id = stop_ids(tokenizer, prompt)
    with progress_bar() as bar:
        for name, indices in unanswered.items():
            words = answer_words(name, items[name])
            task = bar.add_task(name, total=len(items[name]), completed=len(items[name]) - len(indices), note="")
            right = done = 0
            for batch in _batches(items[name], indices, tokenizer, prompt, config.batch_size):
                outputs = _generate(adapted, tokenizer, batch, config)
                rows = [
                    {
                        "index": question.number,
                        "output": output,
                        "prediction": extract_answer(output, words),
                        "label": question.label,
                    }
                    for question, output in zip(batch, outputs, strict=True)
                ]
                runs.append_rows(_predictions(folder, name), rows)
                right += sum(row["prediction"] == row["label"] for row in rows)
                done += len(rows)
                bar.update(task, advance=len(rows), note=f"accuracy {right / done:.1%}")
            _unanswered(folder, name, len(items[name]))  # leaves the file in the order of the questions


def _load(config: CommonsenseEvalConfig, record: dict[str, Any]) -> "PreTrainedModel":
    trained = record["config"]
    dtype = model.resolve_dtype(trained["dtype"])
    if config.base_only:
        loaded = model.load_base(trained["model"], dtype, trained["trust_remote_code"])
    else:
        loaded = model.load_finished(config.run, record, dtype)
    return loaded.to("cuda" if torch.cuda.is_available() else "cpu").eval()


def _batches(
    items: list[Item], indices: Sequence[int], tokenizer: "PreTrainedTokenizerBase", prompt: str, batch_size: int
) -> Iterator[list[Question]]:
    """Batches of questions of about one length, the longest first, so that memory runs out at once or never."""
    ids = evaluation_ids([items[index] for index in indices], tokenizer, prompt)
    questions = [Question(index, row, items[index]["answer"]) for index, row in zip(indices, ids, strict=True)]
    questions.sort(key=lambda question: (-len(question.ids), question.number))
    for start in range(0, len(questions), batch_size):
        yield questions[start : start + batch_size]


@torch.inference_mode()
def _generate(
    adapted: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    batch: list[Question],
    config: CommonsenseEvalConfig,
) -> list[str]:
    """The continuation of each prompt of the batch, without special tokens."""
    inputs = tokenizer.pad(
        {"input_ids": [question.ids for question in batch]}, padding_side="left", return_tensors="pt"
    )
    inputs = inputs.to(adapted.device)
    try:
        tokens = adapted.generate(
            **inputs,
            num_beams=config.num_beams,
            max_new_tokens=config.max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=tokenizer.pad_token_id,
        )
    except torch.OutOfMemoryError as error:
        raise RunError(
            f"Out of memory with {len(batch)} questions of {inputs['input_ids'].shape[1]} tokens and "
            f"{config.num_beams} beams. What is answered is kept: repeat the command with "
            f"--batch-size {max(1, len(batch) // 2)}."
        ) from error
    return tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)


def _write_scores(folder: Path) -> dict[str, Any]:
    """Score every benchmark that is answered to the end, also those of earlier commands."""
    data = runs.read_json(folder / "eval.json")["data"]
    predictions = {name: runs.read_rows(_predictions(folder, name)) for name in data}
    benchmarks = {name: score(rows) for name, rows in predictions.items() if len(rows) == data[name]["questions"]}
    scores = {"benchmarks": benchmarks, "mean": sum(each["accuracy"] for each in benchmarks.values()) / len(benchmarks)}
    runs.write_json(folder / "scores.json", scores)
    return scores
