"""Questions about scenes: one right option each, the forms of LLaVA and VLMEvalKit, nothing of the test in training."""

import base64
import csv
import io
import json
from collections import Counter
from random import Random

import pytest
from PIL import Image

from moslora.embedded import write_visual_questions
from moslora.embedded.vision import BENCHMARK
from moslora.embedded.vision.questions import CHOOSE, LETTERS, draw_questions, to_prompt
from moslora.embedded.vision.world import IMAGE_SIZE

OPTIONS = {"side": 2, "neighbour": 2}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("visual")
    write_visual_questions(folder, train_size=180, test_size=90)
    return folder


@pytest.fixture(scope="module")
def questions():
    return draw_questions(900, Random(1))


@pytest.fixture(scope="module")
def rows(folder):
    with (folder / f"{BENCHMARK}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_training_data_have_the_form_of_llava(folder):
    items = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    assert len(items) == 180
    assert len({item["id"] for item in items}) == 180
    for item in items:
        human, model = item["conversations"]
        assert (human["from"], model["from"]) == ("human", "gpt")
        assert human["value"].startswith("<image>\n")
        assert human["value"].count("<image>") == 1
        offered = [line.partition(". ")[2] for line in human["value"].splitlines() if line[1:3] == ". "]
        assert offered.count(model["value"]) == 1
        with Image.open(folder / "images" / item["image"]) as image:
            assert image.mode == "RGB"
            assert image.width == image.height <= IMAGE_SIZE


def test_the_test_has_the_columns_of_vlmevalkit(rows):
    assert list(rows[0]) == ["index", "image", "question", *LETTERS, "answer", "category", "l2-category"]
    assert [row["index"] for row in rows] == list(map(str, range(90)))
    for row in rows:
        assert row[row["answer"]]
        assert Image.open(io.BytesIO(base64.b64decode(row["image"]))).format == "PNG"


def test_no_picture_of_the_test_is_in_training(folder, rows):
    trained = {path.read_bytes() for path in (folder / "images").iterdir()}
    assert len(trained) == 180
    assert not trained & {base64.b64decode(row["image"]) for row in rows}


def test_the_same_seed_writes_the_same_files_and_another_seed_others(folder, tmp_path):
    for name, seed in (("again", 0), ("other", 1)):
        write_visual_questions(tmp_path / name, seed=seed, train_size=180, test_size=90)
    again, other = (
        [(path / "train.json").read_bytes() + (path / f"{BENCHMARK}.tsv").read_bytes() for path in pair]
        for pair in ((folder, tmp_path / "again"), (folder, tmp_path / "other"))
    )
    assert again[0] == again[1]
    assert other[0] != other[1]
    assert all(
        path.read_bytes() == (tmp_path / "again" / "images" / path.name).read_bytes()
        for path in (folder / "images").iterdir()
    )


def test_every_category_has_as_many_questions_and_no_letter_gives_the_answer_away(questions):
    assert set(Counter(question.category for question in questions).values()) == {100}
    for question in questions:
        assert len(question.options) == len(set(question.options)) == OPTIONS.get(question.category, 4)
    letters = Counter(question.right for question in questions if len(question.options) == 4)
    assert min(letters.values()) > 0.8 * sum(letters.values()) / 4


def test_guessing_the_commonest_answer_of_a_category_is_seldom_right(questions):
    for category in {question.category for question in questions}:
        answers = Counter(question.answer for question in questions if question.category == category)
        assert max(answers.values()) <= 65, (category, answers)


def test_a_question_is_put_with_its_options_and_the_closing_of_vlmevalkit(questions):
    lines = to_prompt(questions[0]).splitlines()
    assert lines[0] == questions[0].text
    assert lines[-1] == CHOOSE
    assert [line[:3] for line in lines[1:-1]] == [f"{letter}. " for letter in LETTERS[: len(lines) - 2]]
