"""Multiple choice, plain and circular. Pure Python.

A circular benchmark asks a question of k options k times, with the options turned by one place each time; the answer
counts if all k are right. Somebody who always says A, or guesses, gains nothing by that.

Source: Liu et al., MMBench, arXiv:2307.06281; indices as in VLMEvalKit's files.
"""

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ....errors import DataError, MoSLoRAWarning
from .intervals import share
from .tsv import Row, options

TURN = 1_000_000  # index = question + TURN * number of places by which its options are turned

# The six L-2 abilities of MMBench -> the short names of the paper's Figure 5, in its order.
ABILITIES = {
    "logic reasoning": "LR",
    "attribute reasoning": "AR",
    "relation reasoning": "RR",
    "finegrained perception (instance-level)": "FP-S",
    "finegrained perception (cross-instance)": "FP-C",
    "coarse perception": "CP",
}

Hit = Callable[[Mapping[str, Any]], bool]


def question_of(row: Mapping[str, Any]) -> int:
    """The question that a row of a circular benchmark asks.

    Raises:
        DataError: its index is not a number.
    """
    return _index(row) % TURN


def with_rotations(rows: Sequence[Row]) -> list[Row]:
    """The rows of a circular benchmark with every rotation of every question.

    Args:
        rows: with rotations, as VLMEvalKit's MMBench files have them, or with none, and then they are made.

    Raises:
        DataError: an index that is not a number, a rotation of a question that is not there, or one without options.
    """
    if not any(_index(row) >= TURN for row in rows):
        return [turned for row in rows for turned in _turns(row)]
    groups = _by_question(rows)
    if alone := [question for question, group in groups.items() if min(map(_index, group)) >= TURN]:
        raise DataError(
            f"There are rotations of question {alone[0]}, but not the question itself: the file is damaged."
        )
    uneven = [question for question, group in groups.items() if len(group) != len(options(group[0]))]
    if uneven:
        warnings.warn(
            f"{len(uneven)} of {len(groups)} questions have not as many rotations as options, first {uneven[0]}. They "
            f"are asked as the file has them. Leave only rows below {TURN}, and the rotations are made.",
            MoSLoRAWarning,
            stacklevel=2,
        )
    return list(rows)


def score_choice(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy, and by category.

    Args:
        rows: with `answer` and `prediction` (a letter, or None), and perhaps `category` and `l2_category`.
    """
    return {**share(sum(map(_right, rows)), len(rows)), "parts": _parts(rows, _right)}


def score_circular(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Share of questions with all rotations right, by ability too, and `vanilla`: without the rotations.

    Args:
        rows: as for `score_choice`, with all rotations.
    """
    groups = _by_question(rows)
    first = [min(group, key=_index) for group in groups.values()]
    vanilla = share(sum(map(_right, first)), len(first))
    hits = {question: all(map(_right, group)) for question, group in groups.items()}

    def right(row: Mapping[str, Any]) -> bool:
        return hits[question_of(row)]

    return {**share(sum(hits.values()), len(hits)), "vanilla": vanilla, "parts": _parts(first, right)}


def chance(rows: Sequence[Mapping[str, str]], circular: bool) -> float:
    """Expected score of one who guesses among the options of each row."""
    if not circular:
        return sum(1 / len(options(row)) for row in rows) / len(rows)
    groups = _by_question(rows).values()
    return sum((1 / len(options(group[0]))) ** len(group) for group in groups) / len(groups)


def ability_name(l2_category: str) -> str:
    """The short name of an L-2 ability, or what is there if it is none of MMBench's six."""
    return ABILITIES.get(l2_category.replace("_", " ").strip().lower(), l2_category)


def _index(row: Mapping[str, Any]) -> int:
    try:
        return int(row["index"])
    except ValueError:
        raise DataError(f"Index {row['index']!r} is not a whole number, which circular evaluation needs.") from None


def _by_question(rows: Iterable[Mapping[str, Any]]) -> dict[int, list[Any]]:
    groups: dict[int, list[Any]] = {}
    for row in rows:
        groups.setdefault(question_of(row), []).append(row)
    return groups


def _turns(row: Row) -> list[Row]:
    """The row with its options turned by 0, 1, 2, ... places; the answer's letter goes with its text."""
    offered = options(row)
    letters, texts = list(offered), list(offered.values())
    if len(letters) < 2:
        raise DataError(f"Row {row['index']} has {len(letters)} options: a circular question needs two or more.")
    turned = []
    for place in range(len(letters)):
        moved = dict(zip(letters, texts[-place:] + texts[:-place], strict=True)) if place else offered
        answer = row.get("answer", "")
        if answer in letters:
            answer = letters[(letters.index(answer) + place) % len(letters)]
        index = str(_index(row) + TURN * place)
        turned.append({**row, **moved, "index": index, **({"answer": answer} if "answer" in row else {})})
    return turned


def _right(row: Mapping[str, Any]) -> bool:
    return row["prediction"] is not None and row["prediction"] == row["answer"]


def _parts(rows: Sequence[Mapping[str, Any]], right: Hit) -> dict[str, dict[str, dict[str, Any]]]:
    """Scores of the parts that the columns `l2_category` and `category` name, as far as they are there."""
    parts = {}
    for title, column, name in (("abilities", "l2_category", ability_name), ("categories", "category", str)):
        hits: dict[str, list[bool]] = {}
        for row in rows:
            if row.get(column):
                hits.setdefault(name(row[column]), []).append(right(row))
        if hits:
            parts[title] = {each: share(sum(hits[each]), len(hits[each])) for each in sorted(hits, key=_place)}
    return parts


def _place(name: str) -> tuple[int, str]:
    """The six abilities in the paper's order, before all other names."""
    known = list(ABILITIES.values())
    return (known.index(name) if name in known else len(known), name)
