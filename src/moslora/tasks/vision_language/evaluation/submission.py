"""The file that MMBench's leaderboard scores: an Excel sheet of the questions and what was predicted.

An .xlsx is a zip of XML files; one sheet of texts needs no library.
"""

import io
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

from ....errors import DataError

# What VLMEvalKit writes: the columns of the TSV but the image, and the prediction. The server has asked for an `answer`
# column although the test split has none: it stays empty.
COLUMNS = ("index", "question", "hint", "A", "B", "C", "D", "answer", "category", "l2-category", "split", "prediction")
_MOST_CHARACTERS = 32767  # of a cell, by Excel's definition

_FILES = {
    "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
    '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    '<Default Extension="xml" ContentType="application/xml"/>'
    '<Override PartName="/xl/workbook.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.sheet.main+xml"/>'
    '<Override PartName="/xl/worksheets/sheet1.xml" '
    'ContentType="application/vnd.openxmlformats-officedocument.spreadsheetml.worksheet+xml"/></Types>',
    "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Target="xl/workbook.xml" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument"/></Relationships>',
    "xl/workbook.xml": '<workbook xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships">'
    '<sheets><sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
    '<Relationship Id="rId1" Target="worksheets/sheet1.xml" '
    'Type="http://schemas.openxmlformats.org/officeDocument/2006/relationships/worksheet"/></Relationships>',
}


def write_submission(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write the answers to MMBench's test questions as its leaderboard takes them.

    Args:
        path: of the .xlsx.
        rows: of the benchmark, with `output`, and `prediction` where a letter was found. The leaderboard looks for a
            letter by rules of its own; where ours found none, the whole output is handed in.
    """
    table: list[list[str | int]] = [list(COLUMNS)]
    for row in sorted(rows, key=lambda each: int(each["index"])):
        texts = {**row, "l2-category": row.get("l2_category", ""), "prediction": row["prediction"] or row["output"]}
        table.append([int(row["index"]), *(str(texts.get(name, "")) for name in COLUMNS[1:])])
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(workbook(table))


def workbook(table: Sequence[Sequence[str | int]]) -> bytes:
    """Content of an .xlsx with one sheet of texts and whole numbers.

    Raises:
        DataError: a text is longer than a cell may be.
    """
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, text in {**_FILES, "xl/worksheets/sheet1.xml": _sheet(table)}.items():
            # A fixed date: the same answers are the same file.
            archive.writestr(
                zipfile.ZipInfo(name, (2024, 1, 1, 0, 0, 0)), f'<?xml version="1.0" encoding="UTF-8"?>{text}'
            )
    return buffer.getvalue()


def _sheet(table: Sequence[Sequence[str | int]]) -> str:
    lines = []
    for number, row in enumerate(table, 1):
        cells = "".join(_cell(text, f"{_letters(place)}{number}") for place, text in enumerate(row))
        lines.append(f'<row r="{number}">{cells}</row>')
    space = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    return f'<worksheet xmlns="{space}"><sheetData>{"".join(lines)}</sheetData></worksheet>'


def _cell(text: str | int, place: str) -> str:
    if isinstance(text, int):
        return f'<c r="{place}"><v>{text}</v></c>'
    if not text:
        return ""
    if len(text) > _MOST_CHARACTERS:
        raise DataError(f"Cell {place} would hold {len(text)} characters; Excel allows {_MOST_CHARACTERS}.")
    text = re.sub(r"[^\t\n\r\u0020-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "", text)  # what XML cannot hold
    return f'<c r="{place}" t="inlineStr"><is><t xml:space="preserve">{escape(text)}</t></is></c>'


def _letters(place: int) -> str:
    """0 -> A, 25 -> Z, 26 -> AA."""
    name = ""
    place += 1
    while place:
        place, rest = divmod(place - 1, 26)
        name = chr(ord("A") + rest) + name
    return name
