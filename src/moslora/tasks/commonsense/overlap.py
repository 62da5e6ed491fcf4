"""What a training set repeats, and which questions of the tests it gives away."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ...checkpoint.progress import track
from ...errors import DataError
from .data import Item, read_items
from .score import offered_words

# "Answer1: dry palms Answer2: wet palms", with the words of the eight benchmarks; texts are folded before.
_OPTION = re.compile(r" (?:answer|solution|ending|option)\d+:")
_FORMAT = " answer format:"

Question = tuple[str, ...]


class Overlap(NamedTuple):
    """Training samples whose question is in a test."""

    rows: list[dict[str, Any]]  # benchmark, questions, same, reordered, samples: see `find_overlap`
    numbers: set[int]  # of the training samples


def read_tests(folder: Path) -> dict[str, list[Item]]:
    """Items of every FOLDER/BENCHMARK/test.json or test.json.gz, by benchmark.

    Raises:
        DataError: there are none, or one cannot be read.
    """
    paths = sorted([*folder.glob("*/test.json"), *folder.glob("*/test.json.gz")])
    if not paths:
        raise DataError(f"{folder} holds no benchmarks: expected BENCHMARK/test.json or test.json.gz in it.")
    return {path.parent.name: read_items(path, needs=("instruction",)) for path in paths}


def same_question(item: Mapping[str, str]) -> Question:
    """What two items share that ask the same, but for white space and case."""
    return (_fold(item["instruction"]), _fold(item["input"]))


def same_options(item: Mapping[str, str]) -> Question | None:
    """What two items share that ask the same with their options in any order; None for a question without options."""
    stem, *options = _OPTION.split(_fold(item["instruction"]).partition(_FORMAT)[0])
    return (stem, _fold(item["input"]), *sorted(map(str.strip, options))) if len(options) > 1 else None


def _fold(text: str) -> str:
    return " ".join(text.casefold().split())


def answer_formats(items: Iterable[Mapping[str, str]]) -> dict[str, int]:
    """How many samples offer which answers, such as "true/false"; the most frequent first, "" for none."""
    return dict(Counter("/".join(offered_words(item)) for item in items).most_common())


def find_duplicates(items: Sequence[Mapping[str, str]]) -> dict[str, int]:
    """Repetitions, white space and case apart.

    Returns:
        `samples`; `duplicates`, those that repeat question and output of an earlier one; `contradictions`, questions
        that occur with more than one output.
    """
    outputs: dict[Question, set[str]] = defaultdict(set)
    for item in items:
        outputs[same_question(item)].add(_fold(item["output"]))
    return {
        "samples": len(items),
        "duplicates": len(items) - sum(map(len, outputs.values())),
        "contradictions": sum(len(each) > 1 for each in outputs.values()),
    }


def find_overlap(items: Sequence[Mapping[str, str]], tests: Mapping[str, Sequence[Mapping[str, str]]]) -> Overlap:
    """Questions of tests that are in the training data.

    Args:
        items: training samples.
        tests: benchmark -> items.

    Returns:
        a row for each benchmark: `questions` it has; `same`, those found in the training data but for white space and
        case; `reordered`, those found only with their options in another order; `samples`, the training samples that
        ask either.
    """
    plain, sorted_options = defaultdict(set), defaultdict(set)
    bar = track(items, len(items), "compare with the tests") if tests else []
    for number, item in enumerate(bar):
        plain[same_question(item)].add(number)
        if (options := same_options(item)) is not None:
            sorted_options[options].add(number)
    rows, numbers = [], set()
    for name, questions in tests.items():
        kinds: Counter[str] = Counter()
        found: set[int] = set()
        for item in questions:
            options = same_options(item)
            same = plain.get(same_question(item), set())
            reordered = sorted_options.get(options, set()) if options is not None else set()
            kinds["same" if same else "reordered" if reordered else "none"] += 1
            found |= same | reordered
        row = {"benchmark": name, "questions": len(questions)}
        rows.append(row | {"same": kinds["same"], "reordered": kinds["reordered"], "samples": len(found)})
        numbers |= found
    return Overlap(rows, numbers)
