"""Pictures of trained runs: the same noise for every run, any batch, and after any interruption."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from moslora.errors import ConfigError, DataError, RunError
from moslora.tasks.subject import generate as generation
from moslora.tasks.subject.config import SubjectGenerateConfig
from moslora.tasks.subject.generate import generate
from moslora.tasks.subject.prompts import LISTS, read_prompts, subject_of
from moslora.tasks.subject.sheet import Row, draw_sheet
from moslora.tasks.subject.train import train
from tests.helpers import data_folder
from tests.tasks.subject.conftest import settings

SMALL = {"prompts": "object", "limit": 2, "seeds": (0, 1), "steps": 2}


@pytest.fixture
def run(trained, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(trained, copy)
    return copy


def pixels(folder):
    return {path.name: np.asarray(Image.open(path)).astype(int) for path in sorted(folder.glob("[0-9]*.png"))}


def test_every_prompt_and_seed_becomes_a_picture_with_a_row(run):
    assert generate(SubjectGenerateConfig(run=(run,), **SMALL)) == {run / "images": 4}
    rows = [json.loads(line) for line in (run / "images" / "images.jsonl").read_text().splitlines()]
    prompts = read_prompts("object", "sks dog")[:2]
    assert rows == [
        {"file": f"{index:04d}-{seed}.png", "prompt_index": index, "prompt": prompts[index], "seed": seed}
        for index in (0, 1)
        for seed in (0, 1)
    ]
    assert all(Image.open(run / "images" / row["file"]).size == (32, 32) for row in rows)


def test_pictures_do_not_depend_on_the_batch(run):
    for batch_size in (1, 3):
        generate(SubjectGenerateConfig(run=(run,), into=f"by-{batch_size}", batch_size=batch_size, **SMALL))
    one, three = pixels(run / "by-1"), pixels(run / "by-3")
    assert one.keys() == three.keys()
    assert max(np.abs(one[name] - three[name]).max() for name in one) <= 1


def test_interrupted_work_goes_on_where_it_stopped(run, monkeypatch):
    generate(SubjectGenerateConfig(run=(run,), into="whole", **SMALL))
    expected = pixels(run / "whole")
    real, calls = generation.draw, []

    def draw(*args, **kwargs):
        calls.append(args[1])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args, **kwargs)

    monkeypatch.setattr(generation, "draw", draw)
    with pytest.raises(KeyboardInterrupt):
        generate(SubjectGenerateConfig(run=(run,), **SMALL))
    assert generate(SubjectGenerateConfig(run=(run,), **SMALL)) == {run / "images": 4}
    assert len(calls) == 5, "two pictures before, one lost, two after"
    found = pixels(run / "images")
    assert all((found[name] == expected[name]).all() for name in expected)


def test_pictures_of_other_settings_or_prompts_are_not_mixed(run):
    generate(SubjectGenerateConfig(run=(run,), **SMALL))
    with pytest.raises(RunError, match=r"steps: 2 in the folder, 3 now"):
        generate(SubjectGenerateConfig(run=(run,), **{**SMALL, "steps": 3}))
    with pytest.raises(RunError, match="holds other pictures"):
        generate(SubjectGenerateConfig(run=(run,), subject="sks cat", **SMALL))


def test_methods_draw_from_the_same_noise(sdxl, photographs, tmp_path):
    """Runs that have learned nothing draw the pictures of the base, whatever their method, and side by side."""
    folders = [tmp_path / method for method in ("lora", "moslora")]
    for folder in folders:
        train(settings(sdxl, photographs, method=folder.name, max_steps=2, learning_rate=1e-30), folder)
    sheet = tmp_path / "sheet.png"
    generate(SubjectGenerateConfig(run=tuple(folders), sheet=sheet, **SMALL))
    generate(SubjectGenerateConfig(run=(folders[0],), base_only=True, **SMALL))
    lora, moslora = (pixels(folder / "images") for folder in folders)
    base = pixels(folders[0] / "images-base")
    assert all((lora[name] == moslora[name]).all() and (lora[name] == base[name]).all() for name in base)
    assert len({picture.tobytes() for picture in base.values()}) == 4, "each prompt and seed has noise of its own"
    with pytest.raises(ConfigError, match="exists already"):
        generate(SubjectGenerateConfig(run=tuple(folders), sheet=sheet, **SMALL))


def test_a_sheet_shows_every_picture_beside_its_prompt():
    colours = [(200, 0, 0), (0, 200, 0), (0, 0, 200), (90, 90, 0)]
    red, green, blue, olive = (Image.new("RGB", (8, 8), colour) for colour in colours)
    sheet = draw_sheet(["a", "b"], [Row("one", [red, green]), Row("two", [blue, None])], [olive], cell=64)
    counts = dict(zip(colours, [sum(pixel == colour for pixel in sheet.getdata()) for colour in colours], strict=True))
    assert counts == {colours[0]: 64 * 64, colours[1]: 64 * 64, colours[2]: 64 * 64, colours[3]: 64 * 64}
    places = {colour: np.argwhere((np.asarray(sheet) == colour).all(-1)).min(0) for colour in colours}
    assert places[colours[0]][0] == places[colours[1]][0] < places[colours[2]][0], "a row per prompt"
    assert places[colours[0]][1] == places[colours[2]][1] < places[colours[1]][1], "a column per title"
    assert places[colours[3]][0] < places[colours[0]][0], "photographs on top"


def test_the_base_alone_draws_into_a_folder_of_its_own(run):
    generate(SubjectGenerateConfig(run=(run,), **SMALL))
    generate(SubjectGenerateConfig(run=(run,), base_only=True, **SMALL))
    with_adapter, without = pixels(run / "images"), pixels(run / "images-base")
    assert any((with_adapter[name] != without[name]).any() for name in without)


@pytest.mark.parametrize("name", LISTS)
def test_the_lists_of_this_package_have_the_25_settings_of_the_protocol_in_other_words(name):
    own = read_prompts(name, "sks dog")
    published = read_prompts(f"{data_folder('dreambooth') / 'prompts_and_classes.txt'}:{name}", "sks dog")
    assert len(own) == len(published) == len(set(own)) == 25
    assert all("sks dog" in prompt for prompt in own + published)
    assert not set(own) & set(published)


def test_prompts_come_from_plain_lines_too(tmp_path):
    path = tmp_path / "prompts.txt"
    path.write_text("# places\n\na {} on a chair\na chair\n")
    assert read_prompts(str(path), "sks dog") == ["a sks dog on a chair", "a chair"]
    with pytest.raises(ConfigError, match="--subject"):
        read_prompts(str(path), "")
    with pytest.raises(DataError, match=r"prompts_and_classes\.txt:object or :live"):
        read_prompts(str(data_folder("dreambooth") / "prompts_and_classes.txt"), "sks dog")


@pytest.mark.parametrize(
    ("prompt", "subject"),
    [
        ("a photo of sks dog", "sks dog"),
        ("a photo of the xyz vase of flowers", "xyz vase of flowers"),
        ("A picture of a sks dog.", "sks dog"),
        ("sks dog", "sks dog"),
    ],
)
def test_the_subject_is_read_from_the_prompt_of_the_run(prompt, subject):
    assert subject_of(prompt) == subject
