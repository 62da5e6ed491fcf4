"""Circular evaluation on hand-made cases with known totals, and on real items."""

import pytest

from moslora.errors import DataError, MoSLoRAWarning
from moslora.tasks.vision_language.evaluation.asked import asked_rows
from moslora.tasks.vision_language.evaluation.choice import (
    TURN,
    ability_name,
    chance,
    score_choice,
    score_circular,
    with_rotations,
)
from moslora.tasks.vision_language.evaluation.tsv import options, read_rows
from tests.helpers import data_folder

from .files import choice_row

LOGIC, COARSE = "logic_reasoning", "Coarse Perception"


def rows_of(*rows):
    return [{key: str(value) for key, value in row.items()} for row in rows]


def answered(rows, answer):
    """The rows with a prediction each: a letter, or a function of the row."""
    return [{**row, "prediction": answer(row) if callable(answer) else answer} for row in rows]


def test_options_are_turned_and_the_answer_goes_with_its_text():
    turned = with_rotations(rows_of(choice_row(5, "B")))
    assert [int(row["index"]) for row in turned] == [5, 5 + TURN, 5 + 2 * TURN]
    assert [list(options(row).values()) for row in turned] == [
        ["one", "two", "three"],
        ["three", "one", "two"],
        ["two", "three", "one"],
    ]
    assert [options(row)[row["answer"]] for row in turned] == ["two"] * 3


def test_an_answer_counts_only_if_all_rotations_are_right():
    # Question 1: all right. Question 2: one rotation wrong. Question 3: only the first rotation wrong. 4: unread.
    rows = with_rotations(rows_of(*(choice_row(number, "A", l2_category=LOGIC) for number in (1, 2, 3, 4))))
    wrong = {str(2 + 2 * TURN), "3"}
    found = score_circular(
        answered(
            rows, lambda row: None if row["index"].endswith("4") else "Z" if row["index"] in wrong else row["answer"]
        )
    )
    assert (found["correct"], found["n"], found["score"]) == (1, 4, 0.25)
    assert (found["vanilla"]["correct"], found["vanilla"]["n"]) == (2, 4)  # questions 1 and 2


def test_always_the_same_letter_gains_nothing():
    rows = with_rotations(rows_of(*(choice_row(number, "A") for number in range(1, 7))))
    found = score_circular(answered(rows, "A"))
    assert found["score"] == 0
    assert found["vanilla"]["score"] == 1


def test_abilities_have_the_papers_names_in_its_order():
    rows = rows_of(
        choice_row(1, l2_category=COARSE), choice_row(2, l2_category=LOGIC), choice_row(3, l2_category=LOGIC),
        choice_row(4, l2_category="finegrained_perception (cross-instance)", category="colour"),
    )  # fmt: skip
    rows = with_rotations(rows)
    found = score_circular(answered(rows, lambda row: "Z" if row["index"] == str(3 + TURN) else row["answer"]))
    abilities = found["parts"]["abilities"]
    assert list(abilities) == ["LR", "FP-C", "CP"]
    assert {name: (each["correct"], each["n"]) for name, each in abilities.items()} == {
        "LR": (1, 2), "FP-C": (1, 1), "CP": (1, 1),
    }  # fmt: skip
    assert list(found["parts"]["categories"]) == ["colour"]
    assert ability_name("Finegrained Perception (instance-level)") == "FP-S"
    assert ability_name("something else") == "something else"


def test_rotations_of_the_file_are_taken_as_they_are_and_missing_ones_noticed():
    rows = with_rotations(rows_of(choice_row(1), choice_row(2, C="")))
    assert with_rotations(rows) == rows
    fewer = [row for row in rows if row["index"] != str(1 + 2 * TURN)]
    with pytest.warns(MoSLoRAWarning, match="1 of 2 questions have not as many rotations as options, first 1"):
        assert with_rotations(fewer) == fewer
    with pytest.raises(DataError, match="rotations of question 1, but not the question itself"):
        with_rotations([row for row in rows if row["index"] != "1"])


def test_indices_must_be_numbers_and_questions_need_options():
    with pytest.raises(DataError, match="Index 'one'"):
        with_rotations(rows_of(choice_row(1) | {"index": "one"}))
    with pytest.raises(DataError, match="1 options"):
        with_rotations(rows_of(choice_row(1, B="", C="")))


def test_guessing_reaches_what_chance_says():
    rows = with_rotations(rows_of(choice_row(1), choice_row(2, C="")))
    assert chance(rows, circular=True) == pytest.approx((1 / 27 + 1 / 4) / 2)
    assert chance(rows, circular=False) == pytest.approx((3 * 1 / 3 + 2 * 1 / 2) / 5)


def test_plain_multiple_choice_is_the_share_of_right_letters():
    rows = rows_of(*(choice_row(number, answer, category="odd" if number % 2 else "even")
                     for number, answer in enumerate("ABCAB", 1)))  # fmt: skip
    found = score_choice(
        [{**row, "prediction": letter} for row, letter in zip(rows, ["A", "B", "A", None, "B"], strict=True)]
    )
    assert (found["correct"], found["n"]) == (3, 5)
    assert {name: each["correct"] for name, each in found["parts"]["categories"].items()} == {"odd": 2, "even": 1}
    assert found["interval"] == pytest.approx([0.2307, 0.8824], abs=5e-5)  # Wilson, from tables


def test_a_limit_takes_questions_whole(tmp_path):
    rows = rows_of(choice_row(3), choice_row(1), choice_row(2))
    limited = asked_rows("MMBench_DEV_EN", tmp_path, rows, "circular", limit=2)
    assert [row["index"] for row in limited] == ["3", "1000003", "2000003", "1", "1000001", "2000001"]


def test_a_file_whose_answer_is_no_option_is_refused(tmp_path):
    with pytest.raises(DataError, match="row 1: options A, B, C, answer 'D'"):
        asked_rows("mine", tmp_path, rows_of(choice_row(1, "D")), "choice")
    with pytest.raises(DataError, match="row 2: no answer"):
        asked_rows("mine", tmp_path, rows_of(choice_row(1), choice_row(2, "")), "circular")


def test_real_items_of_mmbench_go_through_circular_scoring():
    rows = with_rotations(read_rows(data_folder("mmbench_samples") / "MMBench_EN_samples.tsv"))
    assert len(rows) == 78  # 18 questions of four options, 2 of three
    right = score_circular(answered(rows, lambda row: row["answer"]))
    assert {name: each["n"] for name, each in right["parts"]["abilities"].items()} == {
        "LR": 2, "AR": 3, "RR": 3, "FP-S": 4, "FP-C": 3, "CP": 5,
    }  # fmt: skip
    assert all(each["score"] == 1 for each in right["parts"]["abilities"].values())
    always_b = score_circular(answered(rows, "B"))
    assert always_b["correct"] == 0
    assert always_b["vanilla"]["correct"] == sum(row["answer"] == "B" for row in rows if int(row["index"]) < TURN) == 8
