"""MM-Vet: a judge grades each answer from 0 to 1 in steps of 0.1. Pure Python.

`<AND>` in a ground truth joins elements that must all be there, `<OR>` joins alternatives. Without a judge, an answer
gets the share of the elements that it names literally, rounded down to a step; what that gives is a lower bound.

Source: Yu et al., MM-Vet, arXiv:2308.02490.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .intervals import mean

CAPABILITIES = ("rec", "ocr", "know", "gen", "spat", "math")


def parse_grade(reply: str) -> float | None:
    """The grade in a judge's reply, or None if there is not exactly one of 0.0, 0.1, ..., 1.0."""
    found = re.fullmatch(
        r"\W*(?:correctness|score|grade)?\W*(0(?:\.\d0*)?|1(?:\.0+)?)\W*", reply.strip(), re.IGNORECASE
    )
    return float(found[1]) if found else None


def grade_plainly(output: str, truth: str) -> float:
    """The share of a ground truth's elements that stand in an answer word by word, rounded down to a step of 0.1."""
    said = _words(output)
    elements = [[_words(option) for option in each.split("<OR>")] for each in truth.split("<AND>")]
    named = sum(any(option and f" {option} " in f" {said} " for option in each) for each in elements)
    return (10 * named // len(elements)) / 10


def score_mmvet(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean grade, and by capability, of rows with `grade` and `category` (`ocr,spat`)."""
    grades: dict[str, list[float]] = {}
    for row in rows:
        for name in filter(None, (each.strip() for each in row.get("category", "").split(","))):
            grades.setdefault(name, []).append(row["grade"])
    order = {name: place for place, name in enumerate(CAPABILITIES)}
    names = sorted(grades, key=lambda name: (order.get(name, len(order)), name))
    parts = {"capabilities": {name: mean(grades[name]) for name in names}} if names else {}
    return {**mean([row["grade"] for row in rows]), "parts": parts}


def _words(text: str) -> str:
    return " ".join(re.findall(r"[\w.+$%-]*\w|[^\W_]", text.casefold()))
