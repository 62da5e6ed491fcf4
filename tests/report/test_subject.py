"""The report of runs that draw a subject."""

import csv
import re

import numpy as np
import pytest
from PIL import Image

from moslora import runs
from moslora.report.run_folders import write_runs_report
from moslora.report.subject import prompts_figure, read_measured
from moslora.report.subject_sheet import sheet

PROMPTS = ("a sks toy in the snow", "a sks toy on the beach", "a red sks toy")


def entry(mean, interval=True):
    return {"mean": mean, "interval": [mean - 0.02, mean + 0.03] if interval else None, "interval_method": "bootstrap"}


def save_run(folder, method, mean, colour):
    """A run of three prompts and two seeds, measured, with one-coloured pictures."""
    record = {
        "task": "subject",
        "status": "done",
        "seconds": 12.0,
        "final_loss": 0.1,
        "parameters": {"trainable": 1000},
    }
    config = {"method": method, "model": "tiny", "images": str(folder.parent / "photographs")}
    runs.write_json(folder / "run.json", {**record, "config": config})
    runs.append_rows(folder / "metrics.jsonl", [{"step": step, "loss": 1 / step} for step in (1, 2, 3)])
    (folder / "images").mkdir()
    rows = []
    for index, prompt in enumerate(PROMPTS):
        for seed in range(2):
            name = f"{index:04d}-{seed}.png"
            Image.new("RGB", (64, 64), colour).save(folder / "images" / name)
            rows.append({"file": name, "prompt_index": index, "prompt": prompt, "seed": seed})
    runs.append_rows(folder / "images" / "images.jsonl", rows)
    model = {"name": "facebook/dino-vits16", "sha256": None, "commit": "abc123", "processing": {}}
    scores = {
        "task": "subject",
        "subject": "toy",
        "method": method,
        "metrics": {"dino": {**entry(mean), "model": model}, "clip-t": {**entry(mean / 2), "model": model}},
        "prompts": [
            {"prompt_index": index, "prompt": prompt, "metrics": {"dino": entry(mean + index / 100, index > 0)}}
            for index, prompt in enumerate(PROMPTS)
        ],
        "left_out": {"lpips": "no weights: --lpips FOLDER names them"},
    }
    runs.write_json(folder / "eval" / "scores.json", scores)


@pytest.fixture
def measured(tmp_path):
    (tmp_path / "photographs").mkdir()
    Image.new("RGB", (80, 60), "blue").save(tmp_path / "photographs" / "0.jpg")
    folders = [tmp_path / "lora", tmp_path / "moslora"]
    save_run(folders[0], "lora", 0.6, "red")
    save_run(folders[1], "moslora", 0.7, "lime")
    sentence = "DINO: moslora minus lora is +0.1000 (95 % interval -0.0100 to +0.2000): no difference found."
    found = {"runs": [str(folder) for folder in folders], "comparisons": [{"subject": "toy", "sentence": sentence}]}
    runs.write_json(folders[0] / "eval" / "comparison.json", found)
    return folders, sentence


def test_the_page_holds_metrics_intervals_models_differences_and_what_was_left_out(measured, tmp_path):
    folders, sentence = measured
    page = write_runs_report(folders, tmp_path / "report").read_text()
    text = re.sub(r"<[^>]+>", " ", page)
    for wanted in ("0.600", "0.580 to 0.630", "0.700", "0.300", sentence, "commit abc123", "LPIPS diversity: left out"):
        assert wanted in text, wanted
    assert 'data-value="0.7"' in page
    assert page.count("<figure>") == 4, "losses, DINO and CLIP-T by prompt, the sheet"
    with (tmp_path / "report" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert (rows[0]["run"], rows[0]["metric"], float(rows[0]["mean"])) == ("lora", "dino", 0.6)
    with (tmp_path / "report" / "prompts.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 6
    assert rows[0]["low"] == "", "no interval is empty, not zero"
    assert float(rows[1]["low"]) == pytest.approx(0.59)


def test_other_runs_than_those_compared_show_no_differences(measured, tmp_path):
    folders, _ = measured
    page = write_runs_report(folders[:1], tmp_path / "report").read_text()
    assert "no difference found" not in page


def test_the_figure_has_a_point_at_the_mean_of_each_prompt_and_run(measured):
    folders, _ = measured
    figure = prompts_figure(read_measured({folder.name: folder for folder in folders}), "dino")
    [axes] = figure.axes
    drawn = [line.get_xdata() for line in axes.lines if len(line.get_xdata()) == 3 and line.get_marker() != "|"]
    assert np.allclose(drawn[0], [0.6, 0.61, 0.62])
    assert np.allclose(drawn[-1], [0.7, 0.71, 0.72])
    assert [label.get_text() for label in axes.get_yticklabels()] == list(PROMPTS)


def test_the_sheet_shows_each_run_in_its_column_and_the_photographs_above(measured):
    folders, _ = measured
    figure = sheet({folder.name: (folder, folder / "images") for folder in folders}).figure
    images = [image.get_array() for axes in figure.axes for image in axes.images]
    colours = [tuple(int(value) for value in image[30, 30]) for image in images]
    assert colours[0][2] > 250, "the photograph"
    assert colours[1:] == [(255, 0, 0), (0, 255, 0)] * 3
    assert sheet({"nothing": (folders[0], folders[0].parent)}) is None


def test_the_base_model_comes_first_if_it_was_measured(measured):
    folders, _ = measured
    scores = runs.read_json(folders[0] / "eval" / "scores.json")
    runs.write_json(folders[0] / "eval-base" / "scores.json", {**scores, "method": "base model"})
    found = read_measured({folder.name: folder for folder in folders})
    assert [(each.label, each.images.name) for each in found] == [
        ("base model", "images-base"),
        ("lora", "images"),
        ("moslora", "images"),
    ]
