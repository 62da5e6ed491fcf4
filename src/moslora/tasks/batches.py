"""What the batches of every task hold beside the model's arguments."""

from collections.abc import Mapping
from typing import Any

ROWS = "rows"  # numbers of the batch's samples in the training files, from 0; the model is not given them


def without_rows(batch: Mapping[str, Any]) -> dict[str, Any]:
    """A batch as the model takes it."""
    return {name: value for name, value in batch.items() if name != ROWS}
