"""Vectors on the disk by the content they were computed from, so that nothing is computed twice."""

import base64
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from .... import runs


class Store:
    """A JSON-lines file of keys and float32 vectors, to which rows are only added.

    A crash costs at most the rows that were being added.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        rows = runs.read_rows(path)
        if path.exists() and not path.read_bytes().endswith(b"\n"):
            runs.rewrite_rows(path, rows)  # or the next row would go on where a crash cut the last one off
        self._vectors = {row["key"]: np.frombuffer(base64.b64decode(row["float32"]), "<f4") for row in rows}

    def missing(self, keys: Iterable[str]) -> list[str]:
        """The keys without a vector, each once, in their order."""
        return [key for key in dict.fromkeys(keys) if key not in self._vectors]

    def add(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keep vectors (d,) of float32, and bring them to the disk."""
        found = {key: np.ascontiguousarray(vector, "<f4") for key, vector in vectors.items()}
        rows = [{"key": key, "float32": base64.b64encode(vector.tobytes()).decode()} for key, vector in found.items()]
        runs.append_rows(self.path, rows)
        self._vectors |= found

    def get(self, keys: Sequence[str]) -> np.ndarray:
        """(number of keys, d) of float64."""
        return np.stack([self._vectors[key] for key in keys]).astype(np.float64)
