"""Small benchmarks in VLMEvalKit's form, made by the tests."""

import base64
import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL import Image


def image_text(colour: str = "red", size: tuple[int, int] = (24, 16), form: str = "PNG") -> str:
    """Base64 of a picture of one colour."""
    buffer = io.BytesIO()
    Image.new("RGB", size, colour).save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


def write_tsv(path: Path, rows: Sequence[Mapping[str, object]]) -> Path:
    """A TSV with the columns of the first row."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def choice_row(index: int, answer: str = "A", **more: object) -> dict[str, object]:
    """A question with three options."""
    row = {"index": index, "question": f"Which is number {index}?", "A": "one", "B": "two", "C": "three"}
    return {**row, "answer": answer, "image": image_text(), **more}
