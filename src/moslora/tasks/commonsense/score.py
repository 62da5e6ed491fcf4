"""From generated text to accuracy: the authors' rule, the first answer word in the text. Pure Python.

Source: extract_answer in commonsense_reasoning/commonsense_evaluate.py of github.com/wutaiqiang/MoSLoRA.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from ...errors import DataError
from .benchmarks import BENCHMARKS, find_benchmark

_FORMAT = re.compile(r"Answer format:\s*([^\n]*\S)")


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
    if row := find_benchmark(benchmark):
        return row.words
    words: dict[str, None] = {}
    for item in items:
        words |= dict.fromkeys([*offered_words(item), item["answer"]])
    words.pop("", None)
    if not words:
        names = ", ".join(row.name for row in BENCHMARKS)
        raise DataError(
            f"The answers of benchmark {benchmark!r} are unknown: expected one of {names}, or items "
            "with 'Answer format: a/b/c' in the instruction or an 'answer'."
        )
    return tuple(words)


def offered_words(item: Mapping[str, str]) -> tuple[str, ...]:
    """The options that a question names in its `Answer format: a/b/c`; none if it names none."""
    offered = _FORMAT.search(item["instruction"])
    return tuple(offered.group(1).split("/")) if offered else ()


def question_options(item: Mapping[str, str], words: Sequence[str]) -> tuple[str, ...]:
    """The options of one question: those it names, else all `words` of the benchmark."""
    return offered_words(item) or tuple(words)


def chance(items: Iterable[Mapping[str, str]], words: Sequence[str]) -> float:
    """Expected accuracy of a guess among each question's options, in (0, 1]."""
    shares = [1 / len(question_options(item, words)) for item in items]
    return sum(shares) / len(shares)


def extract_answer(output: str, words: Sequence[str]) -> str:
    """The first of `words` that occurs in the output, as it is spelled there; empty if none does."""
    # The longer word first, so that answer10 is not read as answer1.
    found = re.search("|".join(map(re.escape, sorted(words, key=len, reverse=True))), output)
    return found.group() if found else ""


def settled_answer(output: str, words: Sequence[str]) -> str:
    """What `extract_answer` gives for the output and for every text that begins with it; empty while that is open.

    It is open while no word has come up, and while one that has could still turn out to be part of a longer one:
    of `answer1` and `answer12`, "answer1" settles nothing, and "answer1 " does.
    """
    answer = extract_answer(output, words)
    if not answer:
        return ""
    start = output.index(answer)
    for begin in range(max(0, len(output) - max(map(len, words)) + 1), start + 1):
        rest = output[begin:]
        longer = (word for word in words if len(word) > len(rest) and word.startswith(rest))
        if any(begin < start or len(word) > len(answer) for word in longer):
            return ""
    return answer


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


def score(predictions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Accuracy of rows with `prediction` and `label`.

    An empty prediction counts as wrong and as unanswered. `tied` counts the rows whose best two `scores` are equal:
    the first of the options is then the prediction, whatever the label.
    """
    correct = sum(row["prediction"] == row["label"] for row in predictions)
    low, high = wilson_interval(correct, len(predictions))
    return {
        "accuracy": correct / len(predictions),
        "correct": correct,
        "n": len(predictions),
        "unanswered": sum(not row["prediction"] for row in predictions),
        "tied": sum(_tied(row.get("scores", {})) for row in predictions),
        "interval": [low, high],
        "interval_method": "Wilson 95 %",
    }


def _tied(scores: Mapping[str, float]) -> bool:
    return list(scores.values()).count(max(scores.values(), default=0.0)) > 1
