"""VLMEvalKit's TSV files: one question a row, its image as base64 text. Pure Python.

    index     unique; in circular benchmarks, index % 1000000 is the question and index // 1000000 the rotation
    image     base64 of an image file, or the index of the row that holds it
    question  and, by kind, hint, A, B, C, ..., answer, category, l2-category, image_path, ...

Names of columns become lower case with underscores, but for the options' single capitals. Texts stay as they are in the
file: an option `None` or `NA` is an option.
"""

import ast
import contextlib
import csv
import hashlib
import string
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from ....errors import DataError

LONGEST_REFERENCE = 64  # characters; a longer image is an image, as in VLMEvalKit
_LARGEST_FIELD = 2**31 - 1  # characters; Python's own limit is 131072, less than a photograph

Row = dict[str, str]


def read_rows(path: Path, needs: Sequence[str] = ("question",), images: bool = False) -> list[Row]:
    """All rows of a benchmark.

    Args:
        path: of the TSV file.
        needs: columns that must be there, besides `index` and `image`.
        images: keep the base64 text of every row's image, also where the file only refers to it. Otherwise `image` is
            left out, which for the largest benchmarks saves a gigabyte.

    Returns:
        one mapping a row, with `image_id`, equal for equal images.

    Raises:
        DataError: the file is not such a TSV; the message names the line.
    """
    with _long_fields():
        rows = list(_read(path, ("index", "image", *needs)))
    if not rows:
        raise DataError(f"{path} holds no questions: expected a heading and at least one row.")
    _resolve(path, rows)
    for row in rows:
        if not images:
            del row["image"]
    return rows


def options(row: Mapping[str, str]) -> dict[str, str]:
    """Letter -> text of the options that a row offers."""
    return {letter: row[letter] for letter in string.ascii_uppercase if row.get(letter, "").strip()}


def listed(value: Any) -> list[str] | None:
    """The texts of a list, or of a list as Python writes it into a field; None for anything else. Runs nothing."""
    if isinstance(value, str) and value.strip().startswith("["):
        try:
            value = ast.literal_eval(value.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            return None
    return [str(each) for each in value] if isinstance(value, (list, tuple)) else None


@contextlib.contextmanager
def _long_fields() -> Iterator[None]:
    """csv's limit is one for the whole process: leave it as it was."""
    before = csv.field_size_limit(_LARGEST_FIELD)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _read(path: Path, needs: Sequence[str]) -> Iterator[Row]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, delimiter="\t")
            header = [_column(name) for name in next(reader, [])]
            _check_header(path, header, needs)
            for fields in reader:
                if len(fields) != len(header):
                    raise DataError(
                        f"{path}, row that ends in line {reader.line_num}: {len(fields)} fields, expected "
                        f"{len(header)} ({', '.join(header)}). The file is damaged: download it again."
                    )
                yield dict(zip(header, fields, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"Cannot read {path}: {error}. Expected a TSV file in UTF-8, as VLMEvalKit has it.") from error


def _column(name: str) -> str:
    """`l2-category` and `L2_Category` are one column; `A` is an option and `a` is not."""
    return name if len(name) == 1 else name.strip().lower().replace("-", "_")


def _check_header(path: Path, header: Sequence[str], needs: Sequence[str]) -> None:
    missing = [name for name in needs if name not in header]
    if missing:
        raise DataError(
            f"{path} has no column {', '.join(missing)}: expected a tab-separated file with "
            f"{', '.join(needs)}. Found: {', '.join(header)[:200] or 'nothing'}."
        )
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise DataError(f"{path} has the column {', '.join(twice)} more than once.")


def _resolve(path: Path, rows: Sequence[Row]) -> None:
    """Put the image itself where a row names the row that has it, and give equal images an equal `image_id`."""
    by_index: dict[str, Row] = {}
    for row in rows:
        if by_index.setdefault(row["index"], row) is not row:
            raise DataError(f"{path} has the index {row['index']} more than once: every row needs its own.")
    held = {index: row["image"] for index, row in by_index.items() if len(row["image"]) > LONGEST_REFERENCE}
    identity = {index: hashlib.sha256(image.encode()).hexdigest()[:16] for index, image in held.items()}
    for row in rows:
        source = row["index"] if row["index"] in held else row["image"].strip()
        if source not in held:
            found = f"refers to row {source!r}, which has none" if source else "is empty"
            raise DataError(
                f"{path}, row {row['index']}: its image {found}. Expected base64 of an image file, or the index of a "
                "row with such an image."
            )
        row["image"], row["image_id"] = held[source], identity[source]
