import gzip
import json
from pathlib import Path

import pytest

from moslora.errors import DataError
from moslora.tasks.commonsense.score import answer_words, extract_answer, score, wilson_interval
from tests.helpers import data_folder

BENCHMARK_OF_FILE = {
    "arcc": "ARC-Challenge",
    "arce": "ARC-Easy",
    "boolq": "boolq",
    "openbookqa": "openbookqa",
    "piqa": "piqa",
    "siqa": "social_i_qa",
    "winogrande": "winogrande",
}


def _real_outputs() -> dict[Path, list[dict]]:
    files = sorted(data_folder("commonsense_real_outputs").glob("*.jsonl.gz"))
    return {file: [json.loads(line) for line in gzip.open(file, "rt")] for file in files}


def test_every_real_answer_and_running_total_is_reproduced():
    outputs = _real_outputs()
    for file, rows in outputs.items():
        words = answer_words(BENCHMARK_OF_FILE[file.name.removesuffix(".jsonl.gz").rpartition("_")[2]], ())
        correct = 0
        for row in rows:
            prediction = extract_answer(row["output"], words)
            assert prediction == row["prediction"], (file.name, row)
            correct += prediction == row["label"]
            assert correct == row["running_correct"], (file.name, row)
        assert score(rows)["correct"] == correct
    assert sum(map(len, outputs.values())) == 24_754


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ("the correct answer is answer2", "answer2"),
        ("answer3 or answer1", "answer3"),
        ("answer12", "answer12"),
        ("Answer2", ""),
        ("", ""),
    ],
)
def test_the_first_answer_word_wins(output, expected):
    assert extract_answer(output, ("answer1", "answer2", "answer3", "answer12")) == expected


def test_words_of_a_benchmark_of_ones_own_come_from_its_items():
    items = [
        {"instruction": "Is it? Answer format: yes/no", "answer": "yes"},
        {"instruction": "Without a format", "answer": "maybe"},
    ]
    assert answer_words("mine", items) == ("yes", "no", "maybe")
    with pytest.raises(DataError, match="Answer format"):
        answer_words("mine", [{"instruction": "What?", "answer": ""}])


def test_an_unanswered_question_counts_as_wrong():
    rows = [{"prediction": "", "label": "true"}, {"prediction": "true", "label": "true"}]
    scores = score(rows)
    assert (scores["accuracy"], scores["unanswered"]) == (0.5, 1)


def test_wilson_interval_against_published_values():
    # Newcombe (1998), Statistics in Medicine 17, Table I: 81 of 263 gives 0.2553 to 0.3662, 0 of 20 gives 0 to 0.1611.
    assert wilson_interval(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson_interval(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    with pytest.raises(DataError, match="total > 0"):
        wilson_interval(0, 0)
