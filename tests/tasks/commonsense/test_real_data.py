"""The main job on real questions: train on ARC-Easy, answer OpenBookQA."""

from moslora import runs
from moslora.cli import main
from tests.helpers import data_folder


def test_train_on_arc_easy_and_answer_openbookqa(tmp_path, capsys):
    data = data_folder("commonsense")
    out = tmp_path / "run"
    settings = {
        "model": "embedded",
        "data": data / "ARC-Easy" / "train.json",
        "method": "moslora",
        "target-modules": "all-linear",
        "max-steps": 50,
        "batch-size": 8,
        "micro-batch-size": 8,
        "learning-rate": 5e-3,
        "warmup-steps": 5,
        "save-steps": 50,
        "out": out,
    }
    flags = [str(word) for key, value in settings.items() for word in (f"--{key}", value)]
    assert main(["train", "commonsense", *flags, "--no-train-on-inputs"]) == 0
    record = runs.read_json(out / "run.json")
    assert record["samples"]["train"] + record["samples"]["dropped"] == 2251
    losses = [row["loss"] for row in runs.read_rows(out / "metrics.jsonl")]
    assert losses[-1] < 0.5 * losses[0]

    words = ["eval", "commonsense", "--run", str(out), "--data", str(data), "--benchmarks", "openbookqa"]
    assert main([*words, "--limit", "40", "--decoding", "greedy", "--max-new-tokens", "12"]) == 0
    rows = runs.read_rows(out / "eval" / "predictions" / "openbookqa.jsonl")
    assert len(rows) == 40
    assert {row["label"] for row in rows} == {"answer1", "answer2", "answer3", "answer4"}
    scores = runs.read_json(out / "eval" / "scores.json")["benchmarks"]["openbookqa"]
    assert scores["n"] == 40
    assert scores["unanswered"] <= 10  # it has learned the form, though a model this small knows nothing
    assert scores["correct"] == sum(row["prediction"] == row["label"] for row in rows)
    assert "openbookqa" in capsys.readouterr().out
