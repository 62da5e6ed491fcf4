"""Questions of LLM-Adapters, from files to batches.

A file is a JSON list of objects with the texts `instruction`, `input`, `output` and `answer`.
"""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ...errors import DataError
from .prompt import training_prompt

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

Item = dict[str, str]

IGNORED = -100  # label of a token that the loss leaves out


class Split(NamedTuple):
    """Tokenized samples, with columns input_ids, attention_mask and labels."""

    train: "Dataset"
    validation: "Dataset | None"
    dropped: int  # samples whose answer was cut off whole, where the loss is over the answer alone


def read_items(path: str | Path, needs: Iterable[str] = ("instruction", "output")) -> list[Item]:
    """Items of one .json or .json.gz file.

    Args:
        path: the file.
        needs: texts that each item must have; `input` may always be missing.

    Raises:
        DataError: no such file, not JSON, not a list of such items, or empty.
    """
    path = Path(path)
    try:
        raw = path.read_bytes()
        items = json.loads(gzip.decompress(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"Cannot read {path}: {error}. Expected a .json or .json.gz file of LLM-Adapters.") from error
    if not isinstance(items, list) or not items:
        raise DataError(f"{path} holds {type(items).__name__} {str(items)[:40]!r}: expected a JSON list of questions.")
    needs = tuple(needs)
    for number, item in enumerate(items):
        missing = [key for key in needs if not isinstance(item, dict) or not isinstance(item.get(key), str)]
        if missing:
            raise DataError(
                f"Item {number} of {path} has no text under {', '.join(missing)}: found {str(item)[:80]!r}, expected "
                f"an object with {', '.join(needs)}."
            )
    return [{"input": "", **item} for item in items]


def tokenize(
    items: list[Item], tokenizer: "PreTrainedTokenizerBase", *, max_tokens: int, train_on_inputs: bool
) -> dict[str, list[list[int]]]:
    """Token ids and labels of prompts with their answers.

    A sample longer than `max_tokens` loses its end; a shorter one gets the end-of-text token if it has none.

    Returns:
        input_ids, attention_mask and labels, one list a sample; labels of ignored tokens are -100.
    """
    prompts = [training_prompt(item["instruction"], item["input"]) for item in items]
    texts = [prompt + item["output"] for prompt, item in zip(prompts, items, strict=True)]
    tokens = tokenizer(texts, truncation=True, max_length=max_tokens, return_offsets_mapping=not train_on_inputs)
    ids, labels = [list(row) for row in tokens["input_ids"]], []
    for number, row in enumerate(ids):
        if train_on_inputs:
            answer = [True] * len(row)
        else:
            # A token that holds both the last blank of the prompt and the first letter of the answer is the answer's.
            answer = [end > len(prompts[number]) for _, end in tokens["offset_mapping"][number]]
        if len(row) < max_tokens and row[-1] != tokenizer.eos_token_id:
            row.append(tokenizer.eos_token_id)
            answer.append(True)
        labels.append([token if counts else IGNORED for token, counts in zip(row, answer, strict=True)])
    return {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "labels": labels}


def prepare(
    items: list[Item],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    max_tokens: int,
    train_on_inputs: bool,
    validation_size: int,
    seed: int,
) -> Split:
    """Split and tokenize.

    Args:
        items: of all training files.
        tokenizer: of the base model.
        max_tokens: see `tokenize`.
        train_on_inputs: see `tokenize`.
        validation_size: samples held out, drawn with `seed`.
        seed: of the stream "data".

    Raises:
        DataError: nothing is left to train on.
    """
    from datasets import Dataset, disable_progress_bars

    disable_progress_bars()
    columns = ("instruction", "input", "output")
    questions = Dataset.from_list([{key: item[key] for key in columns} for item in items])

    def to_tokens(batch: dict[str, list[str]]) -> dict[str, Any]:
        rows = [
            dict(zip(columns, values, strict=True)) for values in zip(*(batch[key] for key in columns), strict=True)
        ]
        return tokenize(rows, tokenizer, max_tokens=max_tokens, train_on_inputs=train_on_inputs)

    samples = questions.map(to_tokens, batched=True, remove_columns=list(columns))
    if not train_on_inputs:
        samples = samples.filter(lambda labels: any(label != IGNORED for label in labels), input_columns="labels")
    if len(samples) <= validation_size:
        raise DataError(
            f"{len(samples)} of {len(items)} samples have an answer within {max_tokens} tokens and {validation_size} "
            "are to be held out: nothing is left to train on. Give more data, more max_tokens or a smaller "
            "validation_size."
        )
    dropped = len(items) - len(samples)
    if not validation_size:
        return Split(samples, None, dropped)
    halves = samples.train_test_split(test_size=validation_size, shuffle=True, seed=seed)
    return Split(halves["train"], halves["test"], dropped)
