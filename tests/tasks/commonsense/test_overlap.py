"""Repetitions and given-away test questions: small cases by hand, and the real files."""

import json

import pytest

from moslora.errors import ConfigError, DataError, MoSLoRAWarning
from moslora.tasks.commonsense.data import read_items
from moslora.tasks.commonsense.overlap import answer_formats, find_duplicates, find_overlap, read_tests
from moslora.tasks.commonsense.training_set import load_training_set
from tests.helpers import data_folder


def _item(instruction, answer="answer1", context=""):
    output = f"the correct answer is {answer}"
    return {"instruction": instruction, "input": context, "output": output, "answer": answer}


def _choice(stem, *options, word="Answer"):
    offered = " ".join(f"{word}{number}: {text}" for number, text in enumerate(options, 1))
    words = "/".join(f"{word.lower()}{number}" for number in range(1, len(options) + 1))
    return f"Please choose: {stem}\n\n{offered}\n\nAnswer format: {words}"


def test_duplicates_and_contradictions_are_counted_by_hand():
    items = [
        _item("Is it?"),
        _item("is  it?\n"),  # repeats the first but for white space and case
        _item("Is it?", "answer2"),  # contradicts it
        _item("Is it?", context="here"),  # another question
        _item("Is it?"),  # repeats the first
    ]
    assert find_duplicates(items) == {"samples": 5, "duplicates": 2, "contradictions": 1}


@pytest.mark.parametrize("word", ["Answer", "Solution", "Ending", "Option"])
def test_a_question_is_found_again_also_with_its_options_in_another_order(word):
    training = [
        _item(_choice("why?", "sun", "rain", "snow", word=word)),
        _item(_choice("why?", "snow", "rain", "sun", word=word)),
        _item(_choice("why?", "sun", "rain", "ice", word=word)),  # another option
        _item(_choice("who?", "sun", "rain", "snow", word=word)),  # another question
        _item("does it?", "true"),
    ]
    tests = {
        "same": [_item(_choice("Why?", "sun", "rain", "snow", word=word))],
        "reordered": [_item(_choice("why?", "rain", "snow", "sun", word=word))],
        "mixed": [_item(_choice("why?", "sun", "rain", word=word)), _item("does  IT?"), _item("do they?")],
    }
    found = find_overlap(training, tests)
    assert found.rows == [
        {"benchmark": "same", "questions": 1, "same": 1, "reordered": 0, "samples": 2},
        {"benchmark": "reordered", "questions": 1, "same": 0, "reordered": 1, "samples": 2},
        {"benchmark": "mixed", "questions": 3, "same": 1, "reordered": 0, "samples": 1},
    ]
    assert found.numbers == {0, 1, 4}


def test_forms_of_answers_are_counted():
    items = [_item(_choice("a", "x", "y")), _item(_choice("b", "x", "y")), _item("free text")]
    assert answer_formats(items) == {"answer1/answer2": 2, "": 1}


@pytest.fixture
def files(tmp_path):
    """One training file of ten questions, of which the test has two."""
    items = [_item(_choice(f"number {number}?", "x", "y")) for number in range(10)]
    (tmp_path / "train.json").write_text(json.dumps(items))
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "test.json").write_text(json.dumps([*items[:2], _item("another")]))
    return tmp_path


def test_the_overlap_is_removed_only_when_asked(files):
    source, tests = str(files / "train.json"), str(files)
    kept = load_training_set((source,), overlap_with=tests)
    dropped = load_training_set((source,), overlap_with=tests, drop_overlap=True)
    assert kept.items == read_items(source)
    assert dropped.items == read_items(source)[2:]
    assert [each.facts["overlap_dropped"] for each in (kept, dropped)] == [0, 2]
    assert kept.facts["overlapping"] == dropped.facts["overlapping"] == 2
    assert kept.facts["sources"][0]["samples"] == 10
    assert set(kept.inputs) == {"data", "tests"}
    (files / "toy" / "test.json").write_text(json.dumps([_item("changed")]))
    assert load_training_set((source,), overlap_with=tests).inputs != kept.inputs


def test_other_data_than_the_setting_expects_gives_a_warning(files, recwarn):
    source = str(files / "train.json")
    load_training_set((source,), expected_samples=10)
    load_training_set((source,))
    assert not recwarn
    with pytest.warns(MoSLoRAWarning, match="There are 20 training samples, but the setting expects 170,420"):
        load_training_set((source, source), expected_samples=170_420)


def test_no_data_and_no_tests_are_errors(files):
    with pytest.raises(ConfigError, match="give files with --data"):
        load_training_set(())
    with pytest.raises(DataError, match="holds no benchmarks"):
        load_training_set((str(files / "train.json"),), overlap_with=str(files / "toy"))


def test_the_real_training_files_repeat_little_and_give_away_few_test_questions():
    folder = data_folder("commonsense")
    names = ("ARC-Challenge", "ARC-Easy", "boolq", "openbookqa", "piqa", "winogrande")
    training = {name: read_items(*folder.glob(f"{name}/train*")) for name in names}
    assert {name: tuple(find_duplicates(items).values()) for name, items in training.items()} == {
        "ARC-Challenge": (1119, 1, 0),
        "ARC-Easy": (2251, 0, 0),
        "boolq": (9427, 0, 0),
        "openbookqa": (4957, 5, 0),
        "piqa": (16113, 6, 0),
        "winogrande": (40398, 2, 2),
    }
    everything = [item for items in training.values() for item in items]
    found = find_overlap(everything, read_tests(folder))
    counts = {row["benchmark"]: (row["same"], row["reordered"], row["samples"]) for row in found.rows}
    assert {name: each for name, each in counts.items() if any(each)} == {
        "ARC-Easy": (2, 1, 3),
        "openbookqa": (0, 14, 14),
        "piqa": (1, 0, 2),
    }
