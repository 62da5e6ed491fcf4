"""From generated text to accuracy: the authors' rule, the first answer word in the text. Pure Python.

Source: extract_answer in commonsense_reasoning/commonsense_evaluate.py of github.com/wutaiqiang/MoSLoRA.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import DataError

_ANSWERS = ("answer1", "answer2", "answer3", "answer4", "answer5")
# The protocol looks for all of these, also where a question offers fewer.
ANSWER_WORDS: dict[str, tuple[str, ...]] = {
    "boolq": ("true", "false"),
    "piqa": ("solution1", "solution2"),
    "social_i_qa": _ANSWERS,
    "ARC-Challenge": _ANSWERS,
    "ARC-Easy": _ANSWERS,
    "openbookqa": _ANSWERS,
    "hellaswag": ("ending1", "ending2", "ending3", "ending4"),
    "winogrande": ("option1", "option2"),
}
_FORMAT = re.compile(r"Answer format:\s*(\S+)")


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def answer_words(benchmark: str, items: Iterable[Mapping[str, str]]) -> tuple[str, ...]:
    """The words that count as an answer.

    Args:
        benchmark: one of the eight of LLM-Adapters, or any other name.
        items: of the benchmark; for another name, the words are read from the `Answer format: a/b/c` of their
            instructions and from their answers.

    Raises:
        DataError: another name, and the items do not say.
    """
    if benchmark in ANSWER_WORDS:
        return ANSWER_WORDS[benchmark]
    words: dict[str, None] = {}
    for item in items:
        offered = _FORMAT.search(item["instruction"])
        words |= dict.fromkeys(offered.group(1).split("/") if offered else [])
        words |= dict.fromkeys([item["answer"]])
    words.pop("", None)
    if not words:
        raise DataError(
            f"The answers of benchmark {benchmark!r} are unknown: expected one of {', '.join(ANSWER_WORDS)}, or items "
            "with 'Answer format: a/b/c' in the instruction or an 'answer'."
        )
    return tuple(words)


def extract_answer(output: str, words: Sequence[str]) -> str:
    """The first of `words` that occurs in the output, as it is spelled there; empty if none does."""
    # The longer word first, so that answer10 is not read as answer1.
    found = re.search("|".join(map(re.escape, sorted(words, key=len, reverse=True))), output)
    return found.group() if found else ""


def wilson_interval(correct: int, total: int, z: float = 1.959964) -> Interval:
    """Wilson's score interval of a share; z = 1.96 covers 95 %.

    Raises:
        DataError: there are no trials.
    """
    if total <= 0 or not 0 <= correct <= total:
        raise DataError(f"{correct} of {total} answers cannot be scored: expected 0 <= correct <= total and total > 0.")
    share = correct / total
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    centre = share + z * z / (2 * total)
    scale = 1 + z * z / total
    return Interval(max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale))


def score(predictions: Sequence[Mapping[str, str]]) -> dict[str, Any]:
    """Accuracy of rows with `prediction` and `label`; an empty prediction counts as wrong and as unanswered."""
    correct = sum(row["prediction"] == row["label"] for row in predictions)
    low, high = wilson_interval(correct, len(predictions))
    return {
        "accuracy": correct / len(predictions),
        "correct": correct,
        "n": len(predictions),
        "unanswered": sum(not row["prediction"] for row in predictions),
        "interval": [low, high],
        "interval_method": "Wilson 95 %",
    }
