"""Rows of LLaVA's JSON, read from their places in the file one at a time: a million of them take a few megabytes.

A row is `{"id": ..., "image": PATH, "conversations": [{"from": "human", "value": "<image>\\nWhat ..."}, {"from": "gpt",
"value": ...}, ...]}`, without `image` if it is of text alone.
"""

import codecs
import json
import os
from array import array
from collections.abc import Iterator
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO, NamedTuple

from ...errors import DataError
from .prompt import ASSISTANT, SYSTEM, USER, Turn

MARK = "<image>"  # where the data says that the image is, whatever the model's own token
CHUNK_BYTES = 1 << 22
BLANKS = " \t\r\n"
ROLES = {"human": USER, "user": USER, "gpt": ASSISTANT, "assistant": ASSISTANT, "system": SYSTEM}


class Talk(NamedTuple):
    """One row: its turns, and the path of its image inside the image folder."""

    turns: list[Turn]
    image: str | None


class BadRow(DataError):
    """A row that cannot be used; `kind` says in a few words why."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind


class RowFile:
    """The rows of one file. Opening it reads it once; afterwards every row is read from its place.

    Args:
        path: a .json file that holds a list, or a .jsonl file.

    Raises:
        DataError: the file is missing, of another kind, damaged or empty.
    """

    def __init__(self, path: Path) -> None:
        if path.suffix not in (".json", ".jsonl"):
            raise DataError(f"{path} has the unknown ending {path.suffix!r}: expected .json or .jsonl of LLaVA's form.")
        self.path = path
        self._starts, self._lengths = array("q"), array("q")
        try:
            places = _places_of_list(path) if path.suffix == ".json" else _places_of_lines(path)
            for start, length in places:
                self._starts.append(start)
                self._lengths.append(length)
        except (OSError, ValueError, RecursionError) as error:
            raise DataError(f"Cannot read {path}: {error}. Expected rows of LLaVA's form.") from error
        if not self._starts:
            raise DataError(f"{path} holds no rows.")

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> Any:
        with self.path.open("rb") as file:  # opened every time, so that worker processes share no position
            file.seek(self._starts[number])
            return json.loads(file.read(self._lengths[number]))


def parse_row(row: Any) -> Talk:
    """The conversation of a row.

    What the assistant says before the first question is left out, as is a question without an answer at the end. The
    image comes before the text of the first question, wherever in it the row has its mark.

    Raises:
        BadRow: no conversation, turns that do not alternate, several images, or a mark without an image.
    """
    if not isinstance(row, dict) or not isinstance(row.get("conversations"), list):
        raise BadRow("no conversation", f"expected an object with a list of conversations, found {str(row)[:60]!r}")
    turns = [_turn(entry) for entry in row["conversations"]]
    start = [turns.pop(0)] if turns and turns[0].role == SYSTEM else []
    while turns and turns[0].role == ASSISTANT:
        turns.pop(0)
    if turns and turns[-1].role == USER:
        turns.pop()
    if not turns:
        raise BadRow("no answer", f"found {str(row['conversations'])[:60]!r}")
    if any(turn.role != (USER, ASSISTANT)[place % 2] for place, turn in enumerate(turns)):
        raise BadRow("turns do not alternate", ", ".join(turn.role for turn in turns[:8]))
    image = row.get("image")
    if image is not None and not isinstance(image, str):
        raise BadRow("not one image", f"expected the path of one image, found {str(image)[:60]!r}")
    if image and not _stays_inside(image):
        raise BadRow("an image outside of the folder", f"expected a path below --images, found {image[:60]!r}")
    return Talk(start + _place_image(turns, image), image or None)


def _stays_inside(path: str) -> bool:
    """Whether a path, joined to a folder on any system, leads nowhere but below it, and can be the name of a file."""
    try:
        os.fsencode(path)
    except UnicodeEncodeError:
        return False
    place = PureWindowsPath(path)  # knows both kinds of slashes
    return not (place.drive or place.root or ".." in place.parts or "\0" in path)


def _turn(entry: Any) -> Turn:
    found = entry if isinstance(entry, dict) else {}
    role, text = ROLES.get(str(found.get("from"))), found.get("value")
    if role is None or not isinstance(text, str):
        found_text = f"expected from (human or gpt) and value, found {str(entry)[:60]!r}"
        raise BadRow("a turn without speaker or text", found_text)
    return Turn(role, text)


def _place_image(turns: list[Turn], image: str | None) -> list[Turn]:
    marks = sum(turn.text.count(MARK) for turn in turns)
    if not image:
        if marks:
            raise BadRow(f"{MARK} without an image", f"found {turns[0].text[:60]!r}")
        return turns
    if marks > 1 or (marks and MARK not in turns[0].text):
        raise BadRow(f"{MARK} in a wrong place", f"expected it once and in the first question, found it {marks} times")
    first = Turn(USER, turns[0].text.replace(MARK, "").strip(), has_image=True)
    return [first, *turns[1:]]


def _places_of_lines(path: Path) -> Iterator[tuple[int, int]]:
    place = 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.strip():
                try:
                    json.loads(line)
                except ValueError as error:
                    raise ValueError(f"line {number} is not JSON ({error})") from error
                yield place, len(line)
            place += len(line)


def _places_of_list(path: Path) -> Iterator[tuple[int, int]]:
    """Places in bytes of the entries of a JSON list, of which only a part is in memory."""
    with path.open("rb") as file:
        window = _Window(file)
        if window.next_letter(BLANKS) != "[":
            raise ValueError("it is not a JSON list; a file with one row a line is named .jsonl")
        window.advance(1)
        while window.next_letter(f"{BLANKS},") != "]":
            yield window.place, window.pass_value()


class _Window:
    """The part of a JSON file that is in memory; `place` is in bytes, that of the next letter."""

    def __init__(self, file: BinaryIO) -> None:
        self.file = file
        self.place = 3 if file.read(3) == codecs.BOM_UTF8 else 0
        file.seek(0)
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._text, self._cursor = "", 0

    def advance(self, letters: int) -> int:
        """Go on by some letters; returns how many bytes they are."""
        size = len(self._text[self._cursor : self._cursor + letters].encode())
        self._cursor, self.place = self._cursor + letters, self.place + size
        return size

    def next_letter(self, skipped: str) -> str:
        """The next letter that is not one of some others, which are passed."""
        while True:
            if self._cursor == len(self._text):
                if not self._read():
                    raise ValueError("the list has no end: the file is truncated")
            elif self._text[self._cursor] in skipped:
                self.advance(1)
            else:
                return self._text[self._cursor]

    def pass_value(self) -> int:
        """Pass one JSON value; returns its bytes."""
        while True:
            try:
                end = json.JSONDecoder().raw_decode(self._text, self._cursor)[1]
                return self.advance(end - self._cursor)
            except ValueError:
                if not self._read():  # otherwise the value may go on in what has been read
                    raise

    def _read(self) -> bool:
        raw = self.file.read(CHUNK_BYTES)
        self._text, self._cursor = self._text[self._cursor :] + self._decoder.decode(raw, final=not raw), 0
        return bool(raw)
