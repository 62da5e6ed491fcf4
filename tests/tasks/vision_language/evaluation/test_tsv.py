"""Reading VLMEvalKit's files, and refusing what only looks like one."""

import base64
import csv
import io

import pytest
from PIL import Image

from moslora.errors import DataError
from moslora.tasks.vision_language.evaluation.images import decode_image
from moslora.tasks.vision_language.evaluation.tsv import options, read_rows
from tests.helpers import data_folder

from .files import choice_row, image_text, write_tsv


def test_texts_arrive_as_they_are_in_the_file(tmp_path):
    row = choice_row(
        7, hint='a "quoted"\nhint\twith a tab', D="None", E="NA", F="", **{"l2-category": "logic_reasoning"}
    )
    [found] = read_rows(write_tsv(tmp_path / "a.tsv", [row]))
    assert found["hint"] == 'a "quoted"\nhint\twith a tab'
    assert found["l2_category"] == "logic_reasoning"
    assert options(found) == {"A": "one", "B": "two", "C": "three", "D": "None", "E": "NA"}
    assert "image" not in found


def test_a_row_may_name_the_row_that_has_its_image_also_a_later_one(tmp_path):
    red, blue = image_text("red"), image_text("blue")
    path = write_tsv(
        tmp_path / "a.tsv", [choice_row(1, image="2"), choice_row(2, image=red), choice_row(3, image=blue)]
    )
    rows = read_rows(path, images=True)
    assert [row["image"] for row in rows] == [red, red, blue]
    assert rows[0]["image_id"] == rows[1]["image_id"] != rows[2]["image_id"]


def test_large_images_fit_and_pythons_limit_is_left_as_it_was(tmp_path):
    before = csv.field_size_limit()
    noise = base64.b64encode(bytes(range(256)) * 4000).decode()
    assert len(noise) > before
    [row] = read_rows(write_tsv(tmp_path / "a.tsv", [choice_row(1, image=noise)]), images=True)
    assert row["image"] == noise
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace("question", "query", 1), "has no column question.*Found: index, query"),
        (lambda text: "", "has no column index"),
        (lambda text: text.splitlines()[0] + "\n", "holds no questions"),
        (lambda text: text.rsplit("\t", 2)[0] + "\n", "fields, expected 7"),
        (lambda text: text + text.splitlines()[1] + "\n", "index 1 more than once"),
        (lambda text: text.replace("question", "A", 1), "has no column question"),
        (lambda text: text.replace("answer", "A", 1), "column A more than once"),
    ],
)
def test_a_damaged_file_is_named_with_what_is_wrong(tmp_path, change, message):
    path = write_tsv(tmp_path / "a.tsv", [choice_row(1)])
    path.write_text(change(path.read_text()))
    with pytest.raises(DataError, match=message):
        read_rows(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    path = tmp_path / "a.tsv"
    path.write_bytes(b"index\timage\tquestion\n1\t\xff\xfe\tx\n")
    with pytest.raises(DataError, match="UTF-8"):
        read_rows(path)


@pytest.mark.parametrize(
    ("image", "message"), [("9", "refers to row '9'"), ("2", "refers to row '2'"), ("", "is empty")]
)
def test_an_image_that_is_not_there_is_an_error(tmp_path, image, message):
    path = write_tsv(tmp_path / "a.tsv", [choice_row(1, image=image), choice_row(2, image="3"), choice_row(3)])
    with pytest.raises(DataError, match=f"row 1: its image {message}"):
        read_rows(path)


def test_images_become_rgb_whatever_they_were():
    buffer = io.BytesIO()
    Image.new("CMYK", (5, 4), (0, 255, 255, 0)).save(buffer, "JPEG")
    image = decode_image(base64.b64encode(buffer.getvalue()).decode(), "row 1")
    assert (image.mode, image.size) == ("RGB", (5, 4))
    red, green, blue = image.getpixel((2, 2))
    assert red > 200 > 60 > max(green, blue)


def test_an_image_bomb_is_refused_before_it_is_unpacked(monkeypatch):
    assert decode_image(image_text(), "row 1", 24 * 16).size == (24, 16)
    bomb = image_text(size=(24, 17))
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("the image was unpacked"))
    with pytest.raises(DataError, match=r"MME, row 4: .*24 x 17, allowed are 384"):
        decode_image(bomb, "MME, row 4", 24 * 16)


@pytest.mark.parametrize("text", ["no base64!", base64.b64encode(b"no image").decode(), image_text()[:60]])
def test_what_is_no_image_is_refused(text):
    with pytest.raises(DataError, match="row 1: "):
        decode_image(text, "row 1")


def test_formats_that_run_programs_are_not_opened():
    buffer = io.BytesIO()
    Image.new("RGB", (5, 4)).save(buffer, "EPS")
    with pytest.raises(DataError, match="Expected one of JPEG"):
        decode_image(base64.b64encode(buffer.getvalue()).decode(), "row 1")


def test_real_items_of_mmbench_are_read_with_their_images():
    rows = read_rows(data_folder("mmbench_samples") / "MMBench_EN_samples.tsv", images=True)
    assert len(rows) == 20
    assert sum(len(options(row)) for row in rows) == 78
    assert all(row["answer"] in options(row) for row in rows)
    assert all(min(decode_image(row["image"], row["index"]).size) > 50 for row in rows)
