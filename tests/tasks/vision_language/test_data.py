"""Rows of LLaVA's JSON: read from their places, parsed, checked with their images, and counted by a command."""

import json

import pytest
from PIL import Image

from moslora.cli import main
from moslora.errors import ConfigError, DataError
from moslora.tasks.vision_language import rows as rows_module
from moslora.tasks.vision_language.config import DataConfig
from moslora.tasks.vision_language.model import load_processor
from moslora.tasks.vision_language.prompt import ASSISTANT, IGNORED, SYSTEM, USER, ChatForm, Turn
from moslora.tasks.vision_language.rows import BadRow, RowFile, parse_row
from moslora.tasks.vision_language.samples import Collator, Shown, prepare
from moslora.tasks.vision_language.training_set import load_training_set

from .conftest import IMAGE_SIZE, IMAGE_TOKENS, row

ROWS = [row(number, None, f'Wié viel? 数 {"x" * number} 👍\n"]}}, {{\\', "no") for number in range(60)]


@pytest.mark.parametrize(
    "text",
    [
        json.dumps(ROWS),
        json.dumps(ROWS, ensure_ascii=False),
        json.dumps(ROWS, indent=2, ensure_ascii=False),
        "\ufeff \n" + json.dumps(ROWS, separators=(",", ":"), ensure_ascii=False) + "\n\n",
    ],
)
@pytest.mark.parametrize("chunk", [7, 100, 1 << 20])
def test_rows_of_a_list_are_found_at_their_places_however_it_is_read(text, chunk, tmp_path, monkeypatch):
    monkeypatch.setattr(rows_module, "CHUNK_BYTES", chunk)
    (tmp_path / "rows.json").write_text(text, encoding="utf-8")
    file = RowFile(tmp_path / "rows.json")
    assert [file[number] for number in range(len(file))] == ROWS


def test_rows_of_lines(tmp_path):
    text = "\n".join(json.dumps(each, ensure_ascii=False) for each in ROWS)
    (tmp_path / "rows.jsonl").write_text(text.replace("\n", "\n\n", 1), encoding="utf-8")
    file = RowFile(tmp_path / "rows.jsonl")
    assert [file[number] for number in range(len(file))] == ROWS


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.json", json.dumps(ROWS)[:-1], "the list has no end: the file is truncated"),
        ("rows.json", json.dumps(ROWS)[:-40], "Cannot read"),
        ("rows.json", '{"a": 1}', "not a JSON list; a file with one row a line is named .jsonl"),
        ("rows.json", "[]", "holds no rows"),
        ("rows.jsonl", '{"a": 1}\n{"b"', "line 2 is not JSON"),
        ("rows.csv", "", "unknown ending '.csv'"),
    ],
)
def test_a_file_that_is_not_of_that_form_is_refused(name, content, message, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=message):
        RowFile(tmp_path / name)
    with pytest.raises(DataError, match="Cannot read"):
        RowFile(tmp_path / "missing.json")


@pytest.mark.parametrize("text", ["<image>\nWhat is it?", "What is it?\n<image>", "What <image> is it?", "What is it?"])
def test_the_image_comes_first_wherever_the_first_question_has_it(text):
    talk = parse_row(row(1, "a/b.jpg", text, "A dog.", "Sure?", "Yes."))
    assert talk.image == "a/b.jpg"
    assert [turn.role for turn in talk.turns] == [USER, ASSISTANT, USER, ASSISTANT]
    assert talk.turns[0].has_image
    assert "<image>" not in talk.turns[0].text
    assert talk.turns[1] == Turn(ASSISTANT, "A dog.")


def test_what_cannot_be_learned_from_is_left_out():
    first = {"from": "gpt", "value": "Hello"}
    system = {"from": "system", "value": "Be short."}
    talk = row(1, None, "Is it?", "Yes.", "And now?")["conversations"]
    assert parse_row({"conversations": [first, *talk]}).turns == [Turn(USER, "Is it?"), Turn(ASSISTANT, "Yes.")]
    assert parse_row({"conversations": [system, *talk]}).turns[0] == Turn(SYSTEM, "Be short.")


@pytest.mark.parametrize(
    ("bad", "kind"),
    [
        ("text", "no conversation"),
        ({"conversations": "text"}, "no conversation"),
        (row(1, None, "a question"), "no answer"),
        ({"conversations": []}, "no answer"),
        ({"conversations": [{"from": "bird", "value": "x"}]}, "a turn without speaker or text"),
        ({"conversations": [{"from": "human", "value": None}]}, "a turn without speaker or text"),
        ({"conversations": 2 * [{"from": "human", "value": "x"}] + [{"from": "gpt", "value": "x"}]}, "not alternate"),
        ({**row(1, None, "a", "b"), "image": ["a.jpg", "b.jpg"]}, "not one image"),
        (row(1, "../../etc/passwd", "<image> a", "b"), "an image outside of the folder"),
        (row(1, "a/../../b.png", "<image> a", "b"), "an image outside of the folder"),
        (row(1, "/etc/passwd", "<image> a", "b"), "an image outside of the folder"),
        (row(1, "..\\..\\b.png", "<image> a", "b"), "an image outside of the folder"),
        (row(1, "C:\\b.png", "<image> a", "b"), "an image outside of the folder"),
        (row(1, None, "<image> a", "b"), "<image> without an image"),
        (row(1, "a.jpg", "<image> <image> a", "b"), "<image> in a wrong place"),
        (row(1, "a.jpg", "a", "b", "<image> c", "d"), "<image> in a wrong place"),
    ],
)
def test_a_row_that_cannot_be_used_says_why(bad, kind):
    with pytest.raises(BadRow) as caught:
        parse_row(bad)
    assert kind in caught.value.kind
    assert str(caught.value).startswith(caught.value.kind)


@pytest.fixture
def mixed(tmp_path):
    """Two files with usable rows, three bad rows, and images of which two cannot be read."""
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 10), "red").save(tmp_path / "images" / "good.png")
    Image.new("CMYK", (20, 10)).save(tmp_path / "images" / "print.jpg")
    (tmp_path / "images" / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    first = [row(1, "good.png", "<image> a", "b"), row(2, "broken.jpg", "<image> a", "b"), row(3, None, "a", "b")]
    second = [
        row(4, "print.jpg", "<image> a", "b", "c", "d"),
        row(5, "missing.png", "a", "b"),
        *({"conversations": []}, "text", {"conversations": []}),
    ]
    (tmp_path / "one.json").write_text(json.dumps(first))
    (tmp_path / "two.json").write_text(json.dumps(second))
    data = (str(tmp_path / "one.json"), str(tmp_path / "two.json"))
    return DataConfig(data=data, images=str(tmp_path / "images"))


def test_everything_that_cannot_be_used_is_listed_at_once(mixed):
    with pytest.raises(DataError) as caught:
        load_training_set(mixed)
    message = str(caught.value)
    assert "5 of 8 rows cannot be used" in message
    for problem in (
        r"row 1 of .*one\.json.*broken\.jpg",
        r"row 1 of .*two\.json.*missing\.png: there is no such file",
        r"row 3 of .*two\.json: no conversation",
    ):
        assert caught.match(problem)


def test_broken_rows_are_skipped_and_counted_when_asked(mixed):
    found = load_training_set(DataConfig(data=mixed.data, images=mixed.images, skip_broken=True))
    assert [found.rows[number].image for number in found.usable] == ["good.png", None, "print.jpg"]
    assert found.has_image == [True, False, True]
    facts = found.facts
    assert (facts["rows"], facts["with_image"], facts["text_only"], facts["answers"]) == (8, 4, 1, 6)
    assert facts["bad_rows"] == {"no answer": 2, "no conversation": 1}
    assert sum(facts["broken"].values()) == 2
    assert facts["broken"]["missing"] == 1
    assert facts["converted"] == {"cmyk": 1}
    assert facts["skipped"] == 5


def test_images_need_their_folder(mixed):
    with pytest.raises(ConfigError, match="4 images are named in the data: give the folder"):
        load_training_set(DataConfig(data=mixed.data))


def test_the_command_shows_rows_images_and_tokens(mixed, tiny_llava, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    words = ["data", "vision-language", "--data", *mixed.data, "--images", mixed.images, "--model", str(tiny_llava)]
    assert main([*words, "--image-check", str(tmp_path / "known.jsonl"), "--show", "2"]) == 0
    shown = capsys.readouterr().out
    for expected in ("with an image", "no answer", "CMYK", "and 3 more", "95 %"):
        assert expected in shown
    assert (tmp_path / "known.jsonl").exists()


def _shown(tiny_llava, folder, max_tokens):
    processor = load_processor(str(tiny_llava))
    return Shown(ChatForm(processor), processor, folder, max_tokens, pad_to_square=True, max_pixels=10**8)


def test_samples_are_padded_together_and_images_are_stacked(shapes, tiny_llava):
    config = DataConfig(data=(str(shapes / "train.json"),), images=str(shapes / "images"))
    split = prepare(load_training_set(config), _shown(tiny_llava, shapes / "images", 200), validation_size=10, seed=3)
    assert (len(split.train), len(split.validation), split.dropped) == (62, 10, 0)
    assert not set(split.train.numbers) & set(split.validation.numbers)
    for samples in (split.train, split.validation):
        assert [len(samples[place]["input_ids"]) for place in range(len(samples))] == list(samples.lengths)
    with_image = [place for place in range(62) if split.train.has_image[place]][:2]
    text = [place for place in range(62) if not split.train.has_image[place]][:1]
    batch = Collator(pad_token_id=2)([split.train[place] for place in (*with_image, *text)])
    assert batch["pixel_values"].shape == (2, 3, IMAGE_SIZE, IMAGE_SIZE)
    assert batch["input_ids"].shape[1] % 8 == 0
    lengths = [split.train.lengths[place] for place in (*with_image, *text)]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()
    assert "pixel_values" not in Collator(pad_token_id=2)([split.train[text[0]]])


def test_held_out_rows_depend_on_content_not_on_order(shapes, tiny_llava, tmp_path):
    rows = json.loads((shapes / "train.json").read_text())
    chosen = []
    for name, order in (("one", rows), ("two", rows[::-1])):
        (tmp_path / f"{name}.json").write_text(json.dumps(order))
        found = load_training_set(DataConfig(data=(str(tmp_path / f"{name}.json"),), images=str(shapes / "images")))
        split = prepare(found, _shown(tiny_llava, shapes / "images", 200), validation_size=9, seed=3)
        chosen.append(sorted(order[number]["id"] for number in split.validation.numbers))
    assert chosen[0] == chosen[1]


def test_rows_whose_answers_lie_behind_the_limit_are_dropped_and_counted(shapes, tiny_llava):
    found = load_training_set(DataConfig(data=(str(shapes / "train.json"),), images=str(shapes / "images")))
    shown = _shown(tiny_llava, shapes / "images", 200)
    longest = max(prepare(found, shown, validation_size=0, seed=0).train.lengths)
    limit = IMAGE_TOKENS + 8  # every image is whole, but no answer about one is reached
    cut = prepare(found, shown._replace(max_tokens=limit), validation_size=0, seed=0)
    assert (len(cut.train) + cut.dropped, cut.dropped >= 48) == (72, True)
    assert max(cut.train.lengths) <= limit < longest
    with pytest.raises(ConfigError, match=f"an image takes {IMAGE_TOKENS} tokens, which are never cut"):
        prepare(found, shown._replace(max_tokens=IMAGE_TOKENS), validation_size=0, seed=0)
