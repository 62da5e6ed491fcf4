"""TextVQA, MathVista and MM-Vet: what an answer in free words is worth."""

import gzip
import json

import pytest

from moslora.errors import DataError
from moslora.tasks.vision_language.evaluation import mathvista, mmvet, vqa
from moslora.tasks.vision_language.evaluation.asked import asked_rows
from tests.helpers import data_folder


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("The Dog", "dog"),
        ("a  dog\nand an owl", "dog and owl"),
        ("Two", "2"),
        ("none", "0"),
        ("ten dogs", "10 dogs"),
        ("eleven", "eleven"),
        ("dog, cat", "dog cat"),  # beside a space: gone
        ("dog/cat", "dog cat"),  # between letters: a space
        ("U-turn", "u turn"),
        ("1,000", "1000"),  # a thousands comma takes every mark away
        ("1,000-2", "10002"),
        ("St. Louis", "st louis"),
        ("3.5", "3.5"),
        ("v.2", "v.2"),
        (".5", ".5"),
        ("end.", "end"),
        ("dont", "don't"),
        ("isnt its", "isn't its"),
        ("wouldve", "would've"),
        ("youre", "you're"),
        ("were", "were"),
        ("O'Neill", "o'neill"),
        ("theme", "theme"),
        ("", ""),
    ],
)
def test_answers_are_brought_to_one_form(text, form):
    assert vqa.normalize(text) == form


def test_an_answer_is_worth_what_the_people_left_in_say():
    # With k of 10 people agreeing, 10 - k leave-one-outs see k of them, k see k - 1; three make an answer fully right.
    for agreeing in range(11):
        people = ["dog"] * agreeing + [f"other {number}" for number in range(10 - agreeing)]
        expected = ((10 - agreeing) * min(1, agreeing / 3) + agreeing * min(1, (agreeing - 1) / 3)) / 10
        assert vqa.vqa_accuracy("A dog.", people) == pytest.approx(expected)
    assert vqa.vqa_accuracy("dog", ["dog"] * 2 + ["cat"] * 8) == pytest.approx(0.6)
    assert vqa.vqa_accuracy("dog", ["dog"] * 3 + ["cat"] * 7) == pytest.approx(0.9)
    assert vqa.vqa_accuracy("dog", ["dog"] * 4 + ["cat"] * 6) == 1
    assert vqa.vqa_accuracy("", ["dog"] * 10) == 0


def test_a_single_answer_must_be_met():
    assert vqa.vqa_accuracy("the Dog", ["dog"]) == 1
    assert vqa.vqa_accuracy("dogs", ["dog"]) == 0
    with pytest.raises(DataError, match="without an answer"):
        vqa.vqa_accuracy("dog", [])


def test_lists_of_answers_are_read_and_nothing_is_run():
    assert vqa.read_answers("['a', \"b's\"]") == ["a", "b's"]
    assert vqa.read_answers('["1", "2"]') == ["1", "2"]
    assert vqa.read_answers("plain") == ["plain"]
    assert vqa.read_answers("[__import__('os').getcwd()]") == ["[__import__('os').getcwd()]"]


def test_textvqa_is_the_mean_over_questions():
    rows = [
        {"output": "dog", "answer": str(["dog"] * 10)},
        {"output": "cat", "answer": str(["dog"] * 10)},
        {"output": "dog", "answer": str(["dog"] * 3 + ["cat"] * 7)},
        {"output": "dog", "answer": str(["dog"] * 2 + ["cat"] * 8)},
    ]
    found = vqa.score_vqa(rows)
    assert found["score"] == pytest.approx((1 + 0 + 0.9 + 0.6) / 4)
    low, high = found["interval"]
    assert 0 <= low < found["score"] < high <= 1
    assert found == vqa.score_vqa(rows)  # the bootstrap has a seed of its own


def test_mathvistas_published_total_comes_out():
    folder = data_folder("vlm_real_outputs")
    with gzip.open(folder / "mathvista_testmini_bard.json.gz") as file:
        rows = [{**row, **row["metadata"]} for row in json.load(file).values()]
    with gzip.open(folder / "mathvista_testmini_bard_scores.json.gz") as file:
        published = json.load(file)
    assert [mathvista.is_right(mathvista.normalize(row["extraction"], row), row) for row in rows] == [
        row["true_false"] for row in rows
    ]
    found = mathvista.score_mathvista(rows)
    assert (found["correct"], found["n"]) == (348, 1000)
    for title in ("question_type", "answer_type", "task", "skills"):
        assert {name: (each["correct"], each["n"]) for name, each in found["parts"][title].items()} == {
            name: (each["correct"], each["total"]) for name, each in published[title].items()
        }


def test_mathvistas_questions_are_put_as_its_authors_put_them():
    with gzip.open(data_folder("vlm_real_outputs") / "mathvista_testmini_bard.json.gz") as file:
        rows = list(json.load(file).values())
    pairs = [(mathvista.question_text(row), row["query"].strip()) for row in rows]
    # Bard was asked ten of the questions with their options in an order that the published file no longer has.
    assert sum(ours == theirs for ours, theirs in pairs) == 990
    assert all(ours.partition("\nChoices:")[0] == theirs.partition("\nChoices:")[0] for ours, theirs in pairs)
    assert all(mathvista.question_text({**row, "question": row["query"]}) == row["query"].strip() for row in rows)


def test_what_is_extracted_without_a_judge_agrees_with_the_published_extractions():
    with gzip.open(data_folder("vlm_real_outputs") / "mathvista_testmini_bard.json.gz") as file:
        rows = list(json.load(file).values())
    plain = [(row, mathvista.extract_plainly(row["response"], row)) for row in rows]
    read = [
        mathvista.is_right(mathvista.normalize(found, row), row) == row["true_false"] for row, found in plain if found
    ]
    assert len(read) > 500
    assert sum(read) / len(read) > 0.98


MULTI = {
    "question_type": "multi_choice",
    "answer_type": "text",
    "choices": "['3/11', '8/11', '6/11']",
    "answer": "8/11",
}
FLOAT = {"question_type": "free_form", "answer_type": "float", "precision": "1", "answer": "1.2"}
WHOLE = {"question_type": "free_form", "answer_type": "integer", "answer": "14"}
LIST = {"question_type": "free_form", "answer_type": "list", "answer": "[2007, 2008]"}


@pytest.mark.parametrize(
    ("extraction", "row", "form"),
    [
        ("B", MULTI, "8/11"), ("(b) 8/11", MULTI, "8/11"), ("8/12", MULTI, "8/11"), ("", MULTI, None),
        (None, MULTI, None),
        ("1.24", FLOAT, "1.2"), ("1", FLOAT, "1.0"), ("about 1", FLOAT, None), ("14.0", WHOLE, "14"),
        ("14.9", WHOLE, "14"), ("1e400", WHOLE, None), ("fourteen", WHOLE, None),
        ("[2007, 2008]", LIST, "[2007, 2008]"),
    ],
)  # fmt: skip
def test_extractions_take_the_form_of_the_questions_answers(extraction, row, form):
    assert mathvista.normalize(extraction, row) == form


@pytest.mark.parametrize(
    ("output", "row", "found"),
    [
        ("14", WHOLE, "14"), ("The answer is 1,400.", WHOLE, "1400"), ("14 apples and 3 pears", WHOLE, None),
        ("The answer is 14. Or 15?", WHOLE, None), ("Answer: -1.25", FLOAT, "-1.25"), ("", WHOLE, None),
        ("The answer is B.", MULTI, "B"), ("between [2007, 2008]", LIST, "[2007, 2008]"), ("[1] or [2]", LIST, None),
    ],
)  # fmt: skip
def test_only_plain_statements_need_no_judge(output, row, found):
    assert mathvista.extract_plainly(output, row) == found


def test_decimal_places_come_from_the_answer_where_the_file_has_none():
    row = {**FLOAT, "precision": "", "answer": "1.50"}
    assert mathvista.normalize("1.499", row) == "1.5"
    assert mathvista.is_right("1.5", row)


def test_an_answer_may_be_given_as_a_letter():
    assert mathvista.is_right("8/11", {**MULTI, "answer": "B"})
    assert not mathvista.is_right("3/11", {**MULTI, "answer": "B"})


def test_choices_that_cannot_be_read_are_refused(tmp_path):
    row = {**MULTI, "index": "4", "question": "Which?"}
    assert asked_rows("mine", tmp_path, [row], "mathvista") == [row]
    with pytest.raises(DataError, match="row 4: a multi_choice question with choices"):
        asked_rows("mine", tmp_path, [{**row, "choices": "['3/11', "}], "mathvista")


def test_edit_distance_counts_changes():
    assert mathvista.edit_distance("kitten", "sitting") == 3
    assert mathvista.edit_distance("", "abc") == 3
    assert mathvista.edit_distance("abc", "abc") == 0


@pytest.mark.parametrize(
    ("reply", "grade"),
    [
        ("0.5", 0.5), ("1", 1.0), ("0", 0.0), ("Grade: 0.3.", 0.3), ("0.50", 0.5), ("1.0\n", 1.0),
        ("0.55", None), ("1.1", None), ("2", None), ("good", None), ("0.5 or 0.6", None), ("", None),
    ],
)  # fmt: skip
def test_a_grade_is_a_tenth_or_nothing(reply, grade):
    assert mmvet.parse_grade(reply) == grade


@pytest.mark.parametrize(
    ("output", "truth", "grade"),
    [
        ("x is -1 or -5", "-1<AND>-5", 1.0), ("x = -1", "-1<AND>-5", 0.5), ("x = 15", "5", 0.0),
        ("A puppy!", "dog<OR>puppy", 1.0),
        ("one", "one<AND>two<AND>three", 0.3), ("", "dog", 0.0), ("It costs $11.49.", "$11.49", 1.0),
    ],
)  # fmt: skip
def test_without_a_judge_only_literal_elements_count(output, truth, grade):
    assert mmvet.grade_plainly(output, truth) == grade


def test_grades_are_averaged_by_capability():
    rows = [
        {"grade": 1.0, "category": "ocr,math"},
        {"grade": 0.5, "category": "rec"},
        {"grade": 0.0, "category": "rec,ocr"},
    ]
    found = mmvet.score_mmvet(rows)
    assert found["score"] == 0.5
    assert {name: (each["score"], each["n"]) for name, each in found["parts"]["capabilities"].items()} == {
        "rec": (0.25, 2), "ocr": (0.5, 2), "math": (1.0, 1),
    }  # fmt: skip
    assert found["parts"]["capabilities"]["math"]["interval"] is None  # of one question
