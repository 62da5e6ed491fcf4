"""From conversations to what the model is given: tokens, labels and pixels, made when they are asked for."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy
import torch
from torch.utils.data import Dataset

from ... import runs
from ...checkpoint.progress import track
from ...errors import ConfigError, DataError
from ..batches import ROWS
from ..image_files import read_picture
from .images import pixels
from .prompt import IGNORED, ChatForm, Encoded
from .training_set import Rows, TrainingSet

CHUNK = 1000  # rows tokenized at once: large enough for the tokenizer's threads
WHOLE = 1_000_000  # tokens that no row has
MULTIPLE = 8  # of which the padded length is one, for the tensor cores of GPUs


class Shown(NamedTuple):
    """How the model is shown rows and images."""

    form: ChatForm
    processor: Any
    folder: Path  # of images
    max_tokens: int
    pad_to_square: bool
    max_pixels: int


class Samples(Dataset):
    """Samples as dictionaries of input_ids, labels, pixel_values, which is None without an image, and the row's number.

    Args:
        rows: of all files.
        numbers: of the rows that are taken.
        lengths: tokens of each of them.
        has_image: whether each of them has an image.
        shown: how.
    """

    def __init__(
        self, rows: Rows, numbers: Sequence[int], lengths: Sequence[int], has_image: Sequence[bool], shown: Shown
    ) -> None:
        self.rows, self.numbers, self.lengths, self.has_image, self.shown = rows, numbers, lengths, has_image, shown

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> dict[str, Any]:
        talk, shown = self.rows[self.numbers[place]], self.shown
        row = shown.form.encode([talk.turns], shown.max_tokens)[0]
        picture = None
        if talk.image:
            image = read_picture(shown.folder / talk.image, shown.max_pixels).image
            picture = pixels(image, shown.processor, pad_to_square=shown.pad_to_square)
        return {"input_ids": row.ids, "labels": row.labels, "pixel_values": picture, ROWS: self.numbers[place]}


class Split(NamedTuple):
    """Samples of a run."""

    train: Samples
    validation: Samples | None
    dropped: int  # rows of which no answer is within `max_tokens`


def prepare(found: TrainingSet, shown: Shown, *, validation_size: int, seed: int) -> Split:
    """Hold rows out, drop those without any of their answer, and make samples of the rest.

    Which rows are held out depends on seed and content alone, neither on their order nor on the tokenizer.

    Args:
        found: rows that can be used.
        shown: how the model is shown them.
        validation_size: rows held out.
        seed: of the stream "data".

    Raises:
        ConfigError: an image alone takes more than `max_tokens`.
        DataError: nothing is left to train on.
    """
    if any(found.has_image) and shown.form.image_tokens >= shown.max_tokens:
        raise ConfigError(
            f"max_tokens is {shown.max_tokens}, but an image takes {shown.form.image_tokens} tokens, which are never "
            "cut: give more max_tokens."
        )
    lengths = count_tokens(found.rows, found.usable, shown.form, shown.max_tokens)
    kept = [place for place, length in enumerate(lengths) if length]
    ranked = kept
    if validation_size:
        ranked = sorted(kept, key=lambda place: _rank(found.rows.raw(found.usable[place]), seed))
    if len(kept) <= validation_size:
        raise DataError(
            f"{len(kept)} of {len(lengths)} rows have an answer within {shown.max_tokens} tokens, of which "
            f"{validation_size} are to be held out: nothing is left to train on. Give more data or more max_tokens."
        )

    def samples(places: list[int]) -> Samples:
        numbers, sizes = ([column[place] for place in places] for column in (found.usable, lengths))
        return Samples(found.rows, numbers, sizes, [found.has_image[place] for place in places], shown)

    held_out, rest = sorted(ranked[:validation_size]), sorted(ranked[validation_size:])
    return Split(samples(rest), samples(held_out) if held_out else None, len(lengths) - len(kept))


def count_tokens(rows: Rows, numbers: Sequence[int], form: ChatForm, max_tokens: int) -> list[int]:
    """Tokens of each row, at most `max_tokens`; 0 for a row of which no answer is within them."""
    encoded = _encode_all(rows, numbers, form, max_tokens)
    return [len(row.ids) if any(label != IGNORED for label in row.labels) else 0 for row in encoded]


def token_facts(rows: Rows, numbers: Sequence[int], form: ChatForm, max_tokens: int) -> dict[str, float]:
    """Lengths of whole rows in tokens.

    Returns:
        `mean`, `median`, `95 %` and `longest`; `cut`, rows longer than `max_tokens`; `answer_cut`, those of which no
        answer is within it; `learned`, tokens within it that carry loss.
    """
    lengths, learned = [], []
    for row in _encode_all(rows, numbers, form, WHOLE):
        lengths.append(len(row.ids))
        learned.append(sum(label != IGNORED for label in row.labels[:max_tokens]))
    median, high = numpy.percentile(lengths, (50, 95))
    return {
        "mean": float(numpy.mean(lengths)),
        "median": float(median),
        "95 %": float(high),
        "longest": max(lengths),
        "cut": sum(length > max_tokens for length in lengths),
        "answer_cut": sum(count == 0 for count in learned),
        "learned": sum(learned),
    }


def _encode_all(rows: Rows, numbers: Sequence[int], form: ChatForm, max_tokens: int) -> Iterator[Encoded]:
    """Rows as tokens, with a bar on stderr if it takes long."""
    chunks = [numbers[start : start + CHUNK] for start in range(0, len(numbers), CHUNK)]
    shown = track(chunks, len(chunks), "count tokens") if runs.is_main_process() else chunks
    for chunk in shown:
        yield from form.encode([rows[number].turns for number in chunk], max_tokens)


def _rank(row: Any, seed: int) -> bytes:
    return hashlib.sha256(f"{seed}/{json.dumps(row, sort_keys=True)}".encode()).digest()


class Collator:
    """List of samples -> batch of input_ids, attention_mask, labels, rows and, if there are images, pixel_values."""

    def __init__(self, pad_token_id: int) -> None:
        self.pad_token_id = pad_token_id

    def __call__(self, samples: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
        longest = max(len(sample["input_ids"]) for sample in samples)
        length = -(-longest // MULTIPLE) * MULTIPLE

        def padded(rows: list[list[int]], filler: int) -> torch.Tensor:
            return torch.tensor([row + [filler] * (length - len(row)) for row in rows])

        batch = {
            "input_ids": padded([sample["input_ids"] for sample in samples], self.pad_token_id),
            "attention_mask": padded([[1] * len(sample["input_ids"]) for sample in samples], 0),
            "labels": padded([sample["labels"] for sample in samples], IGNORED),
            ROWS: torch.tensor([sample[ROWS] for sample in samples]),
        }
        pictures = [sample["pixel_values"] for sample in samples if sample["pixel_values"] is not None]
        return {**batch, "pixel_values": torch.stack(pictures)} if pictures else batch
