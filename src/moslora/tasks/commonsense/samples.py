"""From questions to tokenized samples: held-out samples, fractions of the rest, token ids and labels."""

import hashlib
import itertools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy

from ... import runs
from ...checkpoint.progress import track
from ...errors import ConfigError, DataError
from ..batches import ROWS
from .data import Item
from .prompt import chat_ids, training_prompt

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label of a token that the loss leaves out
CHUNK = 2000  # samples tokenized at once: large enough for the tokenizer's threads, small enough for a bar that moves
WHOLE = 1_000_000  # tokens that no sample has


class Split(NamedTuple):
    """Tokenized samples, with columns input_ids, attention_mask, labels, and rows: their number among all items."""

    train: "Dataset"
    validation: "Dataset | None"
    dropped: int  # samples whose answer was cut off whole, where the loss is over the answer alone


class Selection(NamedTuple):
    """Items of a run."""

    train: list[Item]
    validation: list[Item]


def select(items: list[Item], *, validation_size: int, fraction: float, seed: int) -> Selection:
    """Hold items out, and take a fraction of the rest.

    Items are drawn by the rank of a hash of seed and text, so the choice depends neither on the order of the files nor
    on the tokenizer; with one seed, a smaller fraction is part of every larger one, and all hold out the same items.

    Args:
        items: of all training files.
        validation_size: items held out.
        fraction: of the others, in (0, 1]; rounded to the nearest number of items, at least one.
        seed: of the stream "data".

    Returns:
        both in the order of `items`.

    Raises:
        DataError: nothing is left to train on.
    """
    rest = len(items) - validation_size
    if rest <= 0:
        raise DataError(
            f"{len(items)} samples, of which {validation_size} are to be held out: nothing is left to train on. Give "
            "more data or a smaller validation_size."
        )
    ranked = sorted(range(len(items)), key=lambda number: _rank(items[number], seed))
    end = validation_size + max(1, round(fraction * rest))
    held_out, chosen = ranked[:validation_size], ranked[validation_size:end]
    return Selection([items[number] for number in sorted(chosen)], [items[number] for number in sorted(held_out)])


def _rank(item: Item, seed: int) -> bytes:
    text = "\0".join((str(seed), item["instruction"], item["input"], item["output"]))
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def tokenize(
    items: list[Item],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    prompt: str = "authors",
    max_tokens: int,
    train_on_inputs: bool,
) -> dict[str, list[list[int]]]:
    """Token ids and labels of prompts with their answers.

    A sample longer than `max_tokens` loses its end. A shorter one of the authors' form gets the end-of-text token if it
    has none; a chat template ends the turn itself.

    Returns:
        input_ids, attention_mask and labels, one list a sample; labels of ignored tokens are -100.

    Raises:
        ConfigError: `chat` with a tokenizer whose template is missing or writes an answer into a changed prompt, or a
            loss over the answer alone with a tokenizer that does not say where its tokens are.
    """
    if prompt == "chat":
        rows = _chat_rows(items, tokenizer, max_tokens)
    else:
        rows = _authors_rows(items, tokenizer, max_tokens, with_offsets=not train_on_inputs)
    labels = [
        [token if counts or train_on_inputs else IGNORED for token, counts in zip(ids, answer, strict=True)]
        for ids, answer in rows
    ]
    ids = [row for row, _ in rows]
    return {"input_ids": ids, "attention_mask": [[1] * len(row) for row in ids], "labels": labels}


def _authors_rows(
    items: list[Item], tokenizer: "PreTrainedTokenizerBase", max_tokens: int, with_offsets: bool
) -> list[tuple[list[int], list[bool]]]:
    """Token ids, and which of them belong to the answer; all of them without offsets."""
    if with_offsets and not tokenizer.is_fast:
        raise ConfigError(
            f"{type(tokenizer).__name__} does not say where a token is in the text, so the answer's tokens cannot be "
            "told from the prompt's: use a fast tokenizer (tokenizer.json), or --train-on-inputs."
        )
    prompts = [training_prompt(item["instruction"], item["input"]) for item in items]
    texts = [prompt + item["output"] for prompt, item in zip(prompts, items, strict=True)]
    tokens = tokenizer(texts, truncation=True, max_length=max_tokens, return_offsets_mapping=with_offsets)
    rows = []
    for number, (prompt, ids) in enumerate(zip(prompts, tokens["input_ids"], strict=True)):
        row, answer = list(ids), [True] * len(ids)
        if with_offsets:
            # A token that holds both the last blank of the prompt and the first letter of the answer is the answer's.
            answer = [end > len(prompt) for _, end in tokens["offset_mapping"][number]]
        if row[-1] == tokenizer.eos_token_id:
            answer[-1] = True  # the tokenizer's own: it has no place in the text
        elif len(row) < max_tokens:
            row.append(tokenizer.eos_token_id)
            answer.append(True)
        rows.append((row, answer))
    return rows


def _chat_rows(
    items: list[Item], tokenizer: "PreTrainedTokenizerBase", max_tokens: int
) -> list[tuple[list[int], list[bool]]]:
    """Token ids, and which of them follow the prompt that evaluation shows."""
    rows = []
    asked, answered = chat_ids(items, tokenizer), chat_ids(items, tokenizer, answered=True)
    for item, prompt, row in zip(items, asked, answered, strict=True):
        if row[: len(prompt)] != prompt:
            raise ConfigError(
                f"The tokenizer's chat template writes another prompt once the answer is there (found for "
                f"{item['instruction'][:60]!r}): what is trained would not be what evaluation asks. Use --prompt "
                "authors or another chat template."
            )
        row = row[:max_tokens]
        rows.append((row, [number >= len(prompt) for number in range(len(row))]))
    return rows


def prepare(
    items: list[Item],
    tokenizer: "PreTrainedTokenizerBase",
    *,
    prompt: str = "authors",
    max_tokens: int,
    train_on_inputs: bool,
    validation_size: int,
    fraction: float = 1.0,
    seed: int,
) -> Split:
    """`select`, then `tokenize`, with a bar on stderr if it takes long.

    Raises:
        DataError: nothing is left to train on, or to validate with.
        ConfigError: see `tokenize`.
    """
    selection = select(items, validation_size=validation_size, fraction=fraction, seed=seed)

    def tokens(chunk: list[Item]) -> dict[str, list[list[int]]]:
        return tokenize(chunk, tokenizer, prompt=prompt, max_tokens=max_tokens, train_on_inputs=train_on_inputs)

    numbers = {id(item): number for number, item in enumerate(items)}
    train, validation = (_dataset(half, [numbers[id(item)] for item in half], tokens) for half in selection)
    kept = len(train) + len(validation)
    if not len(train) or (validation_size and not len(validation)):
        raise DataError(
            f"{kept} of {sum(map(len, selection))} samples have an answer within {max_tokens} tokens: nothing is left "
            f"to {'validate with' if len(train) else 'train on'}. Give more data or more max_tokens."
        )
    return Split(train, validation if validation_size else None, sum(map(len, selection)) - kept)


def count_tokens(
    items: list[Item], tokenizer: "PreTrainedTokenizerBase", *, prompt: str, max_tokens: int
) -> dict[str, float]:
    """Lengths of whole samples in tokens.

    Returns:
        `mean`, `median`, `95 %` and `longest`; `cut`, samples longer than `max_tokens`; `answer_cut`, those whose
        answer begins after it.
    """
    lengths, starts = [], []
    for chunk in _chunks(items, "count tokens"):
        tokens = tokenize(chunk, tokenizer, prompt=prompt, max_tokens=WHOLE, train_on_inputs=False)
        lengths += [len(row) for row in tokens["input_ids"]]
        starts += [sum(label == IGNORED for label in row) for row in tokens["labels"]]
    median, high = numpy.percentile(lengths, (50, 95))
    return {
        "mean": float(numpy.mean(lengths)),
        "median": float(median),
        "95 %": float(high),
        "longest": max(lengths),
        "cut": sum(length > max_tokens for length in lengths),
        "answer_cut": sum(start >= max_tokens for start in starts),
    }


def _chunks(items: list[Item], what: str) -> Iterable[list[Item]]:
    """The items in pieces, with a bar if they take long."""
    chunks = [items[start : start + CHUNK] for start in range(0, len(items), CHUNK)]
    return track(chunks, len(chunks), what) if runs.is_main_process() else chunks


def _dataset(
    items: list[Item], numbers: list[int], tokens: Callable[[list[Item]], dict[str, list[list[int]]]]
) -> "Dataset":
    """The samples that have a label. They are held in memory: 170 thousand take about 200 MB."""
    from datasets import Dataset, Features, List, Value, concatenate_datasets

    kinds = {"input_ids": "int32", "attention_mask": "int8", "labels": "int32"}
    features = Features({name: List(Value(kind)) for name, kind in kinds.items()} | {ROWS: Value("int32")})
    parts = [Dataset.from_dict({name: [] for name in features}, features=features)]
    waiting = iter(numbers)
    for chunk in _chunks(items, "tokenize"):
        columns: dict[str, list[Any]] = {**tokens(chunk), ROWS: list(itertools.islice(waiting, len(chunk)))}
        kept = [number for number, row in enumerate(columns["labels"]) if any(label != IGNORED for label in row)]
        rows = {name: [columns[name][number] for number in kept] for name in features}
        parts.append(Dataset.from_dict(rows, features=features))
    return concatenate_datasets(parts)
