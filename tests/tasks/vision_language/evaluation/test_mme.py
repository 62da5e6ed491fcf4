"""MME on a hand-made case with known totals."""

import pytest

from moslora.errors import DataError
from moslora.tasks.vision_language.evaluation.asked import asked_rows
from moslora.tasks.vision_language.evaluation.mme import COGNITION, PERCEPTION, score_yes_no


def pairs(category, *hits, path="image_path"):
    """Two questions an image; `hits` says of each image which of them are answered rightly."""
    rows = []
    for number, both in enumerate(hits):
        for answer, hit in zip(("Yes", "No"), both, strict=True):
            wrong = {"Yes": "No", "No": None}[answer]  # one wrong, one unread
            row = {
                "index": f"{category}{number}{answer}",
                "category": category,
                "answer": answer,
                "image_id": f"i{number}",
            }
            rows.append({**row, path: f"{category}/{number}.jpg", "prediction": answer if hit else wrong})
    return rows


def test_points_are_accuracy_and_accuracy_plus():
    # existence: 5 of 6 answers, 2 of 3 images: 83.33 + 66.67. OCR: 2 of 4, 0 of 2: 50. code: 2 of 2, 1 of 1: 200.
    rows = [
        *pairs("existence", (1, 1), (1, 0), (1, 1)),
        *pairs("OCR", (1, 0), (0, 1)),
        *pairs("code_reasoning", (1, 1)),
    ]
    found = score_yes_no(rows)
    points = {name: each["points"] for name, each in found["parts"]["subtasks"].items()}
    assert points == pytest.approx({"existence": 150, "OCR": 50, "code_reasoning": 200})
    assert found["perception"] == {"points": pytest.approx(200), "most": 400}
    assert found["cognition"] == {"points": pytest.approx(200), "most": 200}
    assert found["score"] == pytest.approx((150 + 50 + 200) / 600)
    assert (found["correct"], found["n"]) == (9, 12)
    assert found["interval"] is None  # one image in a subtask cannot be drawn anew


def test_all_right_is_2800_points_and_scales_to_one():
    rows = [row for name in (*PERCEPTION, *COGNITION) for row in pairs(name, (1, 1), (1, 1), (1, 1))]
    found = score_yes_no(rows)
    assert found["perception"] == {"points": 2000, "most": 2000}
    assert found["cognition"] == {"points": 800, "most": 800}
    assert found["score"] == 1
    assert found["interval"] == [1, 1]


def test_always_yes_reaches_half_of_the_answers_and_no_image():
    rows = [row | {"prediction": "Yes"} for row in pairs("existence", (1, 1), (1, 1))]
    assert score_yes_no(rows)["parts"]["subtasks"]["existence"]["points"] == 50


def test_the_bootstrap_draws_images_and_not_answers():
    rows = pairs("existence", *[(1, 1)] * 50, *[(0, 0)] * 50)
    low, high = score_yes_no(rows)["interval"]
    # 100 images with score 0 or 1: the standard error is 0.05; 200 answers on their own would have 0.035.
    assert low == pytest.approx(0.4, abs=0.02)
    assert high == pytest.approx(0.6, abs=0.02)


def test_images_are_told_apart_without_a_path_and_subtasks_keep_theirs():
    rows = pairs("existence", (1, 1), (1, 0), path="other") + pairs("count", (0, 1), path="other")
    subtasks = score_yes_no(rows)["parts"]["subtasks"]
    assert subtasks["existence"]["accuracy_plus"]["n"] == 2
    assert subtasks["count"]["accuracy_plus"]["n"] == 1


def test_a_file_that_is_not_whole_is_refused(tmp_path):
    rows = [row for name in (*PERCEPTION, *COGNITION) for row in pairs(name, (1, 1))]
    assert asked_rows("MME", tmp_path, rows, "yes-no") == rows
    with pytest.raises(DataError, match=r"count/0.jpg has 1"):
        asked_rows("MME", tmp_path, [row for row in rows if row["index"] != "count0No"], "yes-no")
    with pytest.raises(DataError, match="fourteen subtasks; missing or unexpected here: OCR, ocr"):
        asked_rows("MME", tmp_path, [row | {"category": row["category"].lower()} for row in rows], "yes-no")


def test_a_limit_takes_both_questions_of_an_image(tmp_path):
    rows = [row for name in (*PERCEPTION, *COGNITION) for row in pairs(name, (1, 1))]
    assert [row["index"] for row in asked_rows("MME", tmp_path, rows, "yes-no", limit=2)] == [
        "existence0Yes", "existence0No", "count0Yes", "count0No",
    ]  # fmt: skip
