"""Tables and figures of run folders, made without torch."""

import json
import subprocess
import sys

import pytest

from moslora import runs
from moslora.errors import DataError, RunError
from moslora.report.canvas import save
from moslora.report.figures import accuracies_figure, losses_figure, read_curve, smooth
from moslora.report.summary import markdown, summarize, summarize_base, table


@pytest.fixture
def run(tmp_path):
    folder = tmp_path / "run"
    record = {"status": "done", "config": {"method": "moslora"}, "parameters": {"trainable": 1234567}}
    runs.write_json(folder / "run.json", {**record, "seconds": 61.26, "final_loss": 0.12345})
    runs.append_rows(folder / "metrics.jsonl", [{"step": step, "loss": 2.0 / step} for step in (1, 2, 3)])
    for name, accuracy in (("eval", 0.75), ("eval-base", 0.25)):
        one = {"accuracy": accuracy, "interval": [accuracy - 0.1, accuracy + 0.1], "n": 100, "unanswered": 0}
        scores = {
            "benchmarks": {"boolq": one, "piqa": {**one, "accuracy": 0.5, "interval": [0.4, 0.6]}},
            "mean": (accuracy + 0.5) / 2,
        }
        runs.write_json(folder / name / "scores.json", scores)
    return folder


def test_the_table_holds_what_the_run_says(run):
    rows = table([summarize_base(run), summarize(run)])
    assert rows == [
        ["method", "trained parameters", "seconds", "loss", "boolq", "piqa", "mean"],
        ["base model", "0", "-", "-", "25.0%", "50.0%", "37.5%"],
        ["moslora", "1,234,567", "61.3", "0.123", "75.0%", "50.0%", "62.5%"],
    ]
    lines = markdown(rows).splitlines()
    assert lines[1] == "| :-- | --: | --: | --: | --: | --: | --: |"
    assert len({line.count("|") for line in lines}) == 1


def test_an_unfinished_run_has_no_summary(run):
    runs.write_json(run / "run.json", {**json.loads((run / "run.json").read_text()), "status": "running"})
    with pytest.raises(RunError, match="not finished"):
        summarize(run)


@pytest.mark.parametrize("suffix", [".png", ".svg"])
def test_figures_show_every_run(run, tmp_path, suffix):
    losses, accuracies = tmp_path / f"losses{suffix}", tmp_path / f"accuracies{suffix}"
    save(losses_figure({"one": [read_curve(run)], "two": [read_curve(run)]}), losses)
    save(accuracies_figure([summarize_base(run), summarize(run)]), accuracies)
    assert min(losses.stat().st_size, accuracies.stat().st_size) > 5000
    if suffix == ".svg":
        assert all(f">{word}<" in accuracies.read_text() for word in ("base model", "moslora", "boolq", "piqa"))


def test_a_run_without_losses_cannot_be_drawn(run):
    (run / "metrics.jsonl").unlink()
    with pytest.raises(DataError, match="holds no losses"):
        read_curve(run)


def test_the_smoothed_line_is_unbiased_from_the_start():
    assert smooth([3.0, 3.0, 3.0]) == pytest.approx([3.0, 3.0, 3.0])
    assert smooth([4.0])[0] == pytest.approx(4.0)


def test_reports_need_no_torch():
    code = "import sys, moslora.report.figures, moslora.report.summary; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "False\n"
