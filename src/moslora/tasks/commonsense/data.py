"""Questions of LLM-Adapters, from files to batches.

A file is a JSON list of objects with the texts `instruction`, `input`, `output` and `answer`.
"""

import gzip
import json
from collections.abc import Iterable
from pathlib import Path

from ...errors import DataError

Item = dict[str, str]


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
