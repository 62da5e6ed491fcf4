"""examples/shapes.py: SHAPES in the forms of LLaVA and VLMEvalKit."""

import base64
import csv
import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from moslora import runs
from moslora.cli import main
from tests.helpers import ROOT, data_folder

STEPS = {"above": (-1, 0), "below": (1, 0), "left": (0, -1), "right": (0, 1)}
COLOURS = ("red", "green", "blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder, script = tmp_path_factory.mktemp("shapes"), ROOT / "examples" / "shapes.py"
    words = [sys.executable, "-W", "ignore", str(script), str(data_folder("shapes_vqa")), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "val: 1024 questions; the commonest answer is right in 61.5%" in done.stdout
    assert "moslora train vision-language" in done.stdout
    return folder


def _rows(folder, part: str) -> list[dict[str, str]]:
    with (folder / f"shapes_{part}.tsv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def _colours(row: dict[str, str]) -> dict[tuple[int, int], str]:
    """Cell -> colour of what stands there."""
    pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(row["image"])))).astype(int)
    cells = {(line, column): pixels[10 * line :, 10 * column :][:10, :10] for line in range(3) for column in range(3)}
    return {
        place: COLOURS[cell[cell.max(-1) > 100].mean(0).argmax()] for place, cell in cells.items() if cell.max() > 80
    }


def _holds(row: dict[str, str]) -> bool:
    """The answer to a question about colours, from its picture alone."""
    one, *between = row["question"].removeprefix("is a ").replace(" of ", " ").replace(" shape", "").split(" ")
    *steps, other = [word for word in between if word != "a"]
    cells = _colours(row)
    places = {place for place, colour in cells.items() if colour == other}
    for step in reversed(steps):
        down, right = STEPS[step]
        places = {(line + down, column + right) for line, column in places}
        places = {place for place in places if set(place) <= {0, 1, 2}}
    return any(cells.get(place) == one for place in places)


def test_questions_about_colours_have_the_answers_that_the_pictures_show(folder):
    """Which also proves that red and blue were not taken for each other."""
    rows = [row for part in ("val", "test") for row in _rows(folder, part)]
    about_colours = [row for row in rows if not set(row["question"].split()) & {"circle", "square", "triangle"}]
    assert len(about_colours) == 832
    assert all(row[row["answer"]] == str(_holds(row)).lower() for row in about_colours)


def test_the_training_data_are_the_small_set(folder):
    items = json.loads((folder / "train.json").read_text(encoding="utf-8"))
    answers = [item["conversations"][1]["value"] for item in items]
    assert (answers.count("true"), answers.count("false")) == (195, 445)
    assert all((folder / "images" / item["image"]).is_file() for item in items)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["lora", "moslora"])
def test_adapters_answer_kinds_of_questions_that_they_were_not_taught(folder, tmp_path, method):
    """Far above the commonest answer, 61.5 %, and the best answer to each of the 16 kinds of questions, 70.1 %."""
    data = ["--data", str(folder / "train.json"), "--images", str(folder / "images")]
    settings = ["--recipe", "vision/embedded", "--set", "epochs=3", "--method", method]
    assert main(["train", "vision-language", *settings, *data, "--out", str(tmp_path)]) == 0
    assert (
        main(["eval", "vision-language", "--run", str(tmp_path), "--data", str(folder), "--benchmarks", "shapes_val"])
        == 0
    )
    scores = runs.read_json(tmp_path / "eval" / "scores.json")["benchmarks"]["shapes_val"]
    assert scores["n"] == 1024
    assert scores["interval"][0] > 0.8
