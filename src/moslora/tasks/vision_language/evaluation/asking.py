"""From rows of a benchmark to predictions, batch by batch, whoever answers. No torch."""

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .benchmarks import Kind
from .images import decode_image
from .prompts import prompt
from .tsv import Row

if TYPE_CHECKING:
    from PIL import Image


class Question(NamedTuple):
    """What a model is asked."""

    text: str  # without any token that stands for the image
    image: "Image.Image"


class Answerer(Protocol):
    """Something that answers questions about images."""

    def answer(self, questions: Sequence[Question], max_new_tokens: int) -> list[str]:
        """A text for each question."""


def answer_in_batches(
    name: str, rows: Sequence[Row], kind: Kind, answerer: Answerer, batch_size: int, max_new_tokens: int
) -> Iterator[list[dict[str, Any]]]:
    """Answer questions, those with the longest texts first: memory runs out at once or never.

    Args:
        name: of the benchmark, for messages.
        rows: that are unanswered, with their `image`.
        kind: of the benchmark.
        answerer: of one batch.
        batch_size: questions per batch.
        max_new_tokens: generated at most.

    Yields:
        for each question of a batch its row without the image, with the model's `output`.

    Raises:
        DataError: an image cannot be read.
    """
    waiting = sorted(rows, key=lambda row: (-len(prompt(row, kind)), row["index"]))
    for start in range(0, len(waiting), batch_size):
        batch = waiting[start : start + batch_size]
        questions = [
            Question(prompt(row, kind), decode_image(row["image"], f"{name}, row {row['index']}")) for row in batch
        ]
        outputs = answerer.answer(questions, max_new_tokens)
        yield [{**without_image(row), "output": output} for row, output in zip(batch, outputs, strict=True)]


def without_image(row: Mapping[str, Any]) -> dict[str, Any]:
    """All of a row that fits a line of text."""
    return {key: value for key, value in row.items() if key != "image"}
