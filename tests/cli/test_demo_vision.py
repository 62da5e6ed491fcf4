"""The vision-language demo from end to end."""

import base64
import io

import pytest
from PIL import Image

from moslora import runs
from moslora.cli import main
from moslora.cli.demo_vision import draw_answers
from moslora.embedded.vision import BENCHMARK
from moslora.embedded.vision.questions import TEST_SIZE


@pytest.mark.slow
def test_the_demo_trains_and_evaluates_three_methods_and_repeats_no_finished_step(tmp_path, capfd):
    out = tmp_path / "demo"
    assert main(["demo", "vision", "--out", str(out)]) == 0
    printed = capfd.readouterr().out
    assert str(out.resolve()) in printed.splitlines()[-1]
    scores = {
        name: runs.read_json(out / "runs" / folder / "scores.json")["benchmarks"][BENCHMARK]
        for name, folder in {
            "base": "lora/eval-base",
            "LoRA": "lora/eval",
            "MoSLoRA": "moslora/eval",
            "QMoSLoRA": "qmoslora/eval",
        }.items()
    }
    assert {each["n"] for each in scores.values()} == {TEST_SIZE}
    for name in ("LoRA", "MoSLoRA", "QMoSLoRA"):
        assert scores[name]["interval"][0] > scores["base"]["score"], scores[name]
    assert runs.read_json(out / "runs" / "qmoslora" / "run.json")["config"]["quantize"] == "nf4"
    for name in ("answers/report.html", "answers/answers.png", "report/report.html"):
        assert (out / name).is_file()

    before = {path: path.read_bytes() for path in (out / "runs").glob("*/run.json")}
    assert len(before) == 3
    assert main(["demo", "vision", "--out", str(out)]) == 0
    assert all(path.read_bytes() == content for path, content in before.items())


def test_right_answers_are_green_and_wrong_ones_red():
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "PNG")
    row = {"index": "4", "image": base64.b64encode(file.getvalue()).decode(), "question": "What?"}
    row |= {"A": "star", "B": "ring", "answer": "B"}
    figure = draw_answers([row], {"LoRA": {"4": "ring"}, "base": {"4": "star"}})
    colours = {text.get_text(): text.get_color() for text in figure.axes[0].texts}
    assert colours == {"What?": "black", "LoRA: ring": "#1a7f37", "base: star": "#b3261e"}
