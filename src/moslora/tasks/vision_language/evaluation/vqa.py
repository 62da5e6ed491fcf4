"""TextVQA: VQA accuracy against ten answers of people, each left out once. Pure Python.

An answer is worth min(1, agreeing people / 3). Each person in turn is left out, so that people can be measured by the
same rule, and the mean is taken. Before they are compared, answers are brought to one form, see `normalize`.

Source: Antol et al., VQA, arXiv:1505.00468, and the rules of its evaluation page.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from ....errors import DataError
from .intervals import mean
from .tsv import listed

AGREEING = 3  # people who make an answer fully right
_ARTICLES = {"a", "an", "the"}
_DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_NUMBERS = {word: str(number) for number, word in enumerate(_DIGITS)} | {"none": "0"}
_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def _contractions() -> dict[str, str]:
    """Contraction without its apostrophe -> with it; not those that are words themselves, such as `its` and `well`."""
    endings = {
        "n't": "ai are ca could did does do had has have is might must need ought sha should was were wo would",
        "'ve": "could i might must should they we what where who would you",
        "'d": "he how it she somebody someone something there they where who you",
        "'ll": "how it somebody someone something they what who why you",
        "'re": "there they what why you",
        "'s": "he how somebody someone that there what when where who why let",
        "'m": "i",
    }
    ambiguous = {"shed", "were", "lets"}
    found: dict[str, str] = {}
    for ending, stems in endings.items():
        found |= {f"{stem}{ending}".replace("'", ""): f"{stem}{ending}" for stem in stems.split()}
    found |= {"maam": "ma'am", "oclock": "o'clock", "yall": "y'all", "twas": "'twas"}
    return {plain: written for plain, written in found.items() if plain not in ambiguous}


_CONTRACTIONS = _contractions()


def normalize(answer: str) -> str:
    """The form in which answers are compared.

    Lower case; one space between words; a punctuation mark goes if it stands beside a space somewhere in the answer, or
    if the answer has a comma between digits, and else becomes a space; a full stop stays only before a digit; numbers
    up to ten in digits; no articles; contractions with their apostrophe.
    """
    text = answer.replace("\n", " ").replace("\t", " ").strip()
    thousands = re.search(r"\d,\d", text) is not None
    source = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in source or f" {mark}" in source
        text = text.replace(mark, "" if beside_space or thousands else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    words = [_NUMBERS.get(word, word) for word in text.lower().split()]
    return " ".join(_CONTRACTIONS.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(output: str, answers: Sequence[str]) -> float:
    """What an answer is worth, in [0, 1].

    Args:
        output: of the model.
        answers: of the people who were asked; a single one must be met.

    Raises:
        DataError: there are no answers.
    """
    if not answers:
        raise DataError("A question without an answer cannot be scored.")
    given, people = normalize(output), [normalize(answer) for answer in answers]
    if len(people) == 1:
        return float(given == people[0])
    agreeing = people.count(given)
    worth = [min(1.0, (agreeing - (person == given)) / AGREEING) for person in people]
    return sum(worth) / len(worth)


def read_answers(text: str) -> list[str]:
    """The answers of a row: a list of texts, or one text."""
    return listed(text) or [text]


def score_vqa(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean accuracy of rows with `output` and `answer`."""
    return mean([vqa_accuracy(row["output"], read_answers(row["answer"])) for row in rows])
