"""MathVista: an answer is extracted from a text, brought to the form of the question's answers, and compared.

Extraction is a judge's work (`judging`); what needs none is done here. Pure Python.

Source: Lu et al., MathVista, arXiv:2310.02255: the most similar option by edit distance, whole numbers cut, decimal
numbers rounded to the question's precision.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .intervals import share
from .matching import match_option
from .tsv import listed

_NUMBER = r"[-+]?(?:\d+(?:,\d{3})*(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d+)?"

_PLACES = "requiring a floating-point number with {} and provide the final value, e.g., {}"
_HINTS = {
    "multi_choice": "and provide the correct option letter, e.g., A, B, C, D",
    "integer": "requiring an integer answer and provide the final value, e.g., 1, 2, 3",
    "float 1": _PLACES.format("one decimal place", "1.2, 1.3, 1.4"),
    "float 2": _PLACES.format("two decimal places", "1.23, 1.34, 1.45"),
    "list": "requiring a Python list as an answer and provide the final list, e.g., [1, 2, 3], [1.2, 1.3, 1.4]",
}


def choices_of(row: Mapping[str, Any]) -> list[str]:
    """Texts of the options; empty for a free question."""
    return listed(row.get("choices")) or []


def question_text(row: Mapping[str, Any]) -> str:
    """The question as MathVista puts it: a hint at the form of the answer, the question with its unit, the choices.

    VLMEvalKit's file holds all of that in `question`, and it is then left as it is.
    """
    question = row["question"]
    if question.strip().startswith("Hint:"):
        return question.strip()
    form = "multi_choice" if row["question_type"] == "multi_choice" else row["answer_type"]
    if form == "float":
        form = "float 2" if precision_of(row) == 2 else "float 1"
    hint = f"Hint: Please answer the question {_HINTS[form]}, at the end.\n" if form in _HINTS else ""
    unit = f" (Unit: {row['unit']})" if row.get("unit") else ""
    choices = "".join(f"\n({chr(65 + place)}) {text}" for place, text in enumerate(choices_of(row)))
    return (f"{hint}Question: {question}{unit}" + (f"\nChoices:{choices}" if choices else "")).strip()


def precision_of(row: Mapping[str, Any]) -> int:
    """Decimal places of a decimal answer: as the row says, else those that its answer has."""
    text = str(row.get("precision") or "").strip()
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return len(str(row.get("answer", "")).partition(".")[2])


def normalize(extraction: str | None, row: Mapping[str, Any]) -> str | None:
    """An extraction in the form of the row's answers, or None if it is no such answer.

    Args:
        extraction: as a judge, or a rule, took it from the model's text. None and an empty text are no answer: the
            published rule would take the shortest option for it.
        row: with `question_type`, `answer_type` and, if they apply, `choices` and `precision`.
    """
    text = "" if extraction is None else str(extraction).strip()
    if not text:
        return None
    if row["question_type"] == "multi_choice":
        return _choice(text, choices_of(row))
    try:
        match row["answer_type"]:
            case "integer":
                return str(int(float(text)))
            case "float":
                return str(round(float(text), precision_of(row)))
    except (ValueError, OverflowError):
        return None
    return text


def is_right(prediction: str | None, row: Mapping[str, Any]) -> bool:
    """Whether a normalised answer is the row's."""
    return prediction is not None and prediction == correct_answer(row)


def correct_answer(row: Mapping[str, Any]) -> str:
    """The answer in the form of `normalize`: VLMEvalKit's file may write 1.50 or a letter where an answer is 1.5."""
    answer = str(row["answer"])
    choices = choices_of(row)
    if row["question_type"] == "multi_choice":
        return answer if answer in choices else _choice(answer, choices) or answer
    return answer if row["answer_type"] not in ("integer", "float") else normalize(answer, row) or answer


def extract_plainly(output: str, row: Mapping[str, Any]) -> str | None:
    """The answer of a text that states it without ambiguity, else None: then a judge is asked, if there is one."""
    text = output.strip()
    choices = choices_of(row)
    if row["question_type"] == "multi_choice":
        letters = {chr(ord("A") + place): choice for place, choice in enumerate(choices)}
        return match_option(text, letters)
    if row["answer_type"] == "list":
        lists = re.findall(r"\[[^\[\]]*\]", text)
        return lists[0] if len(lists) == 1 else None
    if row["answer_type"] not in ("integer", "float"):
        return None
    # A number alone, or one after "answer is"; a number somewhere in an argument may be any.
    for pattern in (rf"\W*?({_NUMBER})\W*", rf".*\banswer(?:\s+is)?\s*:?\W*?({_NUMBER})\D*"):
        if found := re.fullmatch(pattern, text, re.DOTALL | re.IGNORECASE):
            return found[1].replace(",", "")
    return None


def score_mathvista(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy, and by task, skill and type, of rows with `extraction` (or None) and the columns of the benchmark."""
    hits = [is_right(normalize(row["extraction"], row), row) for row in rows]
    parts: dict[str, dict[str, list[bool]]] = {}
    for row, hit in zip(rows, hits, strict=True):
        for title in ("task", "skills", "question_type", "answer_type"):
            value = row.get(title)
            for name in listed(value) or ([value] if value else []):
                parts.setdefault(title, {}).setdefault(name, []).append(hit)
    return {
        **share(sum(hits), len(hits)),
        "parts": {
            title: {name: share(sum(each), len(each)) for name, each in sorted(found.items())}
            for title, found in parts.items()
        },
    }


def _choice(text: str, choices: Sequence[str]) -> str | None:
    letter = re.search(r"\(([a-zA-Z])\)", text)
    place = ord(letter[1].upper()) - ord("A") if letter else ord(text) - ord("A") if len(text) == 1 else -1
    if 0 <= place < len(choices):
        return choices[place]
    return min(choices, key=lambda choice: edit_distance(letter[1].upper() if letter else text, choice), default=None)


def edit_distance(one: str, other: str) -> int:
    """Fewest insertions, deletions and replacements of a character that make one text the other."""
    before = list(range(len(other) + 1))
    for row, character in enumerate(one, 1):
        after = [row]
        for column, wanted in enumerate(other, 1):
            after.append(min(before[column] + 1, after[-1] + 1, before[column - 1] + (character != wanted)))
        before = after
    return before[-1]
