"""Which rows of a benchmark are asked, and whether they can be. Pure Python."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ....errors import DataError
from . import choice, mathvista, mme
from .benchmarks import Kind
from .tsv import Row, options

_NEEDS: Mapping[Kind, tuple[str, ...]] = {
    "choice": ("answer",),
    "yes-no": ("answer",),
    "vqa": ("answer",),
    "mathvista": ("answer", "question_type", "answer_type"),
    "mmvet": ("answer", "category"),
}


def asked_rows(name: str, path: Path, rows: Sequence[Row], kind: Kind, limit: int = 0) -> list[Row]:
    """All rows, with every rotation where the benchmark is circular; or those of the first questions.

    Args:
        name: of the benchmark.
        path: its file, for messages.
        rows: of the file.
        kind: how it is asked.
        limit: questions, of a yes-no benchmark images; 0 takes all.

    Raises:
        DataError: a column or an answer is missing, or the rows do not belong together.
    """
    if missing := [column for column in _NEEDS.get(kind, ()) if column not in rows[0]]:
        raise DataError(f"{path} has no column {', '.join(missing)}, which the kind {kind!r} needs.")
    if kind in ("choice", "circular"):
        _check_options(path, rows)
    asked = choice.with_rotations(rows) if kind == "circular" else list(rows)
    empty = [row["index"] for row in asked if not has_answer(row)]
    if empty and (kind != "circular" or len(empty) < len(asked)):
        raise DataError(
            f"{path}, row {empty[0]}: no answer. Only the test split of a circular benchmark may be without answers."
        )
    if kind == "mathvista":
        _check_choices(path, asked)
    if name == "MME":
        mme.check_pairs(asked)
    if not limit:
        return asked
    first = set(list(dict.fromkeys(unit(row, kind) for row in asked))[:limit])
    return [row for row in asked if unit(row, kind) in first]


def unit(row: Mapping[str, Any], kind: Kind) -> Any:
    """What a row shares with the rows that are scored together with it."""
    match kind:
        case "circular":
            return choice.question_of(row)
        case "yes-no":
            return mme.image_of(row)
    return row["index"]


def has_answer(row: Mapping[str, Any]) -> bool:
    """Whether the file says what is right; a leaderboard's test split does not."""
    return bool(row.get("answer", "").strip())


def guessing(rows: Sequence[Mapping[str, str]], kind: Kind) -> float | None:
    """Expected score of one who guesses; None where that depends on what is guessed, as for numbers."""
    match kind:
        case "choice" | "circular":
            return choice.chance(rows, kind == "circular")
        case "yes-no":
            return mme.CHANCE
    return None


def _check_choices(path: Path, rows: Sequence[Row]) -> None:
    for row in rows:
        if row["question_type"] == "multi_choice" and len(mathvista.choices_of(row)) < 2:
            raise DataError(
                f"{path}, row {row['index']}: a multi_choice question with choices {row.get('choices', '')!r}. "
                "Expected a list of two texts or more, for example ['3/11', '8/11']."
            )


def _check_options(path: Path, rows: Sequence[Row]) -> None:
    for row in rows:
        answer = row.get("answer", "").strip()
        if len(options(row)) < 2 or (answer and answer not in options(row)):
            raise DataError(
                f"{path}, row {row['index']}: options {', '.join(options(row)) or 'none'}, answer {answer!r}. Expected "
                "two options or more in the columns A, B, ..., and the letter of one of them as the answer."
            )
