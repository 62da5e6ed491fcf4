"""Questions from files, folders and the Hugging Face hub.

A question has the texts `instruction`, `input` (may be missing), `output` and, for tests, `answer`, as in the files of
LLM-Adapters.
"""

import csv
import gzip
import hashlib
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from ... import runs
from ...errors import ConfigError, DataError

Item = dict[str, str]

COLUMNS = ("instruction", "input", "output", "answer")
HUB = "hf:"
MOST_UNPACKED = 2**31  # bytes: thirty times the paper's training data
_HUB_NAME = re.compile(r"hf:(?P<name>[^@]+?)(@(?P<revision>[^:]+))?(:(?P<split>[^:/\\]+))?")


def read_items(
    source: str | Path, needs: Iterable[str] = ("instruction", "output"), columns: Mapping[str, str] | None = None
) -> list[Item]:
    """Items of one source.

    Args:
        source: a .json (a list), .jsonl (one object a line), .csv, .tsv or .parquet file, the first four also with .gz;
            a folder of the `datasets` library; or `hf:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]`, where a folder may stand
            for the name. The split is `train` unless given.
        needs: texts that each item must have; `input` may always be missing.
        columns: the source's name of a text, where it differs, for example {"output": "response"}.

    Raises:
        DataError: no such source, damaged, not a list of such items, or empty.
    """
    rows = _read_dataset(str(source)) if _is_dataset(source) else _read_file(Path(source))
    if not isinstance(rows, list) or not rows:
        raise DataError(f"{source} holds {type(rows).__name__} {str(rows)[:40]!r}: expected a JSON list of questions.")
    needs, columns = tuple(needs), columns or {}
    return [_item(row, number, source, needs, columns) for number, row in enumerate(rows)]


def _item(row: Any, number: int, source: str | Path, needs: tuple[str, ...], columns: Mapping[str, str]) -> Item:
    found = row if isinstance(row, dict) else {}
    item = {**found, **{ours: found[theirs] for ours, theirs in columns.items() if theirs in found}}
    missing = [columns.get(key, key) for key in needs if not isinstance(item.get(key), str)]
    if not isinstance(item.get("input") or "", str):
        missing.append(columns.get("input", "input"))
    if missing:
        raise DataError(
            f"Item {number} of {source} has no text under {', '.join(missing)}: found {str(row)[:80]!r}, expected "
            f"{', '.join(columns.get(key, key) for key in needs)}. Name other columns with --columns, for example "
            "--columns instruction=question output=response."
        )
    return {**item, "input": item.get("input") or ""}


def parse_columns(texts: Iterable[str]) -> dict[str, str]:
    """Names of columns from texts such as `output=response`.

    Raises:
        ConfigError: not of that form, or not the name of a text.
    """
    pairs = [text.partition("=") for text in texts]
    wrong = [f"{ours}{sign}{theirs}" for ours, sign, theirs in pairs if not theirs or ours not in COLUMNS]
    if wrong:
        raise ConfigError(
            f"--columns {' '.join(wrong)} cannot be used: expected NAME=COLUMN, where NAME is {', '.join(COLUMNS)}."
        )
    return {ours: theirs for ours, _, theirs in pairs}


def source_sha256(source: str, items: list[Item]) -> str:
    """SHA-256 of a file, or of the items of a folder or hub data set, whose files differ with how they were fetched."""
    return items_sha256(items) if _is_dataset(source) else runs.file_sha256(Path(source))


def items_sha256(items: Iterable[Item]) -> str:
    """SHA-256 of items, in their order."""
    digest = hashlib.sha256()
    for item in items:
        digest.update(json.dumps(item, sort_keys=True, default=str).encode() + b"\n")
    return digest.hexdigest()


def _is_dataset(source: str | Path) -> bool:
    return str(source).startswith(HUB) or Path(source).is_dir()


def _read_file(path: Path) -> Any:
    suffix = Path(path.name.removesuffix(".gz")).suffix
    if suffix not in _READERS:
        raise DataError(
            f"{path} has the unknown ending {suffix or path.suffix!r}: expected {', '.join(_READERS)}, a folder, or "
            f"{HUB}OWNER/NAME."
        )
    try:
        raw = path.read_bytes()
        return _READERS[suffix](_unpacked(raw) if path.suffix == ".gz" else raw)
    except (OSError, EOFError, ValueError, RecursionError, zlib.error, csv.Error) as error:
        hint = " A file with one object a line is named .jsonl." if suffix == ".json" else ""
        raise DataError(f"Cannot read {path}: {error}. Expected a {suffix} file of questions.{hint}") from error


def _unpacked(raw: bytes) -> bytes:
    with gzip.open(io.BytesIO(raw)) as file:
        found = file.read(MOST_UNPACKED + 1)
    if len(found) > MOST_UNPACKED:
        raise ValueError(f"it unpacks to more than {MOST_UNPACKED:,} bytes; if it is what you want, unpack it yourself")
    return found


def _read_lines(raw: bytes) -> list[Any]:
    return [json.loads(line) for line in raw.splitlines() if line.strip()]


def _read_table(raw: bytes, delimiter: str) -> list[dict[str, str]]:
    text = io.StringIO(raw.decode("utf-8-sig"), newline="")  # spreadsheets begin a file with a byte-order mark
    reader = csv.DictReader(text, delimiter=delimiter, strict=True)
    rows = list(reader)
    ragged = [number for number, row in enumerate(rows) if None in row or None in row.values()]
    if ragged:
        raise ValueError(f"row {ragged[0] + 1} has not the {len(reader.fieldnames or ())} cells of the first line")
    return rows


def _read_parquet(raw: bytes) -> list[dict[str, Any]]:
    import pyarrow.parquet

    file = pyarrow.parquet.ParquetFile(io.BytesIO(raw))
    size = sum(file.metadata.row_group(number).total_byte_size for number in range(file.num_row_groups))
    if size > MOST_UNPACKED:
        raise ValueError(f"it unpacks to {size:,} bytes, more than {MOST_UNPACKED:,}: write it in several files")
    return file.read().to_pylist()


_READERS: dict[str, Callable[[bytes], Any]] = {
    ".json": json.loads,
    ".jsonl": _read_lines,
    ".csv": lambda raw: _read_table(raw, ","),
    ".tsv": lambda raw: _read_table(raw, "\t"),
    ".parquet": _read_parquet,
}


def _read_dataset(source: str) -> list[dict[str, Any]]:
    import datasets

    parts = _HUB_NAME.fullmatch(source if source.startswith(HUB) else HUB + source)
    if parts is None:
        raise DataError(f"{source!r} cannot be read as {HUB}OWNER/NAME[/CONFIG][@REVISION][:SPLIT] or a folder.")
    name, split = parts["name"], parts["split"] or "train"
    config = None if Path(name).is_dir() else "/".join(name.split("/")[2:]) or None
    try:
        if (Path(name) / "dataset_dict.json").exists():
            return datasets.load_from_disk(name)[split].to_list()
        if (Path(name) / "dataset_info.json").exists():  # one split, saved alone
            return datasets.load_from_disk(name).to_list()
        place = name if Path(name).is_dir() else "/".join(name.split("/")[:2])
        return datasets.load_dataset(place, config, revision=parts["revision"], split=split).to_list()
    except Exception as error:  # datasets, its readers and the hub raise errors of many kinds
        raise DataError(
            f"Cannot load {source!r}: {type(error).__name__}: {error} Expected a data set with a split {split!r}; name "
            f"another with {HUB}{name}:SPLIT."
        ) from error
