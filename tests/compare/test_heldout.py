"""Training questions kept aside."""

import json

import pytest

from moslora.compare.heldout import hold_out
from moslora.errors import DataError
from tests.tasks.commonsense.conftest import make_items


def _read(path):
    return json.loads(path.read_text())


def _texts(items):
    return {item["instruction"] for item in items}


def test_held_out_questions_are_in_no_training_file_not_even_as_copies(tmp_path):
    items = make_items(40, seed=0)
    items += items[:10]
    assert hold_out(items, tmp_path, size=12, seed=0) == 12
    train, test = _read(tmp_path / "train.json"), _read(tmp_path / "validation" / "answer4" / "test.json")
    assert not _texts(train) & _texts(test)
    assert _texts(train) | _texts(test) == _texts(items)
    assert len(test) == len(_texts(test)) == 12


def test_the_draw_depends_on_the_seed_alone(tmp_path):
    items = make_items(60, seed=0)
    drawn = []
    for number, seed in enumerate((0, 0, 1)):
        hold_out(items, tmp_path / str(number), size=None, seed=seed)
        drawn.append(_read(tmp_path / str(number) / "validation" / "answer4" / "test.json"))
    assert len(drawn[0]) == 6
    assert drawn[0] == drawn[1] != drawn[2]


def test_questions_are_grouped_by_the_answers_they_offer(tmp_path):
    formats = {"true/false": "true-false", "option1/option2": "option2", "": "questions"}
    items = [
        {
            "instruction": f"Question {number}" + (f" Answer format: {offer}" if offer else ""),
            "input": "",
            "output": "x",
            "answer": "x",
        }
        for number, offer in enumerate(formats)
    ]
    assert hold_out([*items, *make_items(1, seed=0)], tmp_path, size=3, seed=0) == 3
    found = {path.parent.name for path in tmp_path.glob("validation/*/test.json")}
    assert len(found) == 3
    assert found < {*formats.values(), "answer4"}


def test_without_answers_nothing_is_held_out(tmp_path):
    items = [{key: value for key, value in item.items() if key != "answer"} for item in make_items(20, seed=0)]
    assert hold_out(items, tmp_path, size=None, seed=0) == 0
    assert _read(tmp_path / "train.json") == items


def test_something_must_be_left_to_train_on(tmp_path):
    with pytest.raises(DataError, match="would be held out"):
        hold_out(make_items(5, seed=0), tmp_path, size=5, seed=0)
