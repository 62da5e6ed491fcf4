"""The demo from end to end."""

import pytest

from moslora import runs
from moslora.cli import main


@pytest.mark.slow
def test_the_demo_leaves_what_it_promises_and_repeats_no_finished_step(tmp_path, capfd):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 0
    printed = capfd.readouterr().out
    for method in ("lora", "moslora"):
        record = runs.read_json(out / method / "run.json")
        scores = runs.read_json(out / method / "eval" / "scores.json")
        assert record["status"] == "done"
        assert scores["mean"] > 0.5
    assert runs.read_json(out / "lora" / "eval-base" / "scores.json")["mean"] < 0.15
    assert {path.name for path in out.iterdir()} >= {"results.md", "losses.png", "accuracies.png", "exported"}
    assert "same best token everywhere in 50 of 50 prompts" in printed
    assert str(out.resolve()) in printed.splitlines()[-1]

    before = (out / "moslora" / "run.json").read_bytes()
    assert main(["demo", "--out", str(out)]) == 0
    assert "is there already" in capfd.readouterr().out
    assert (out / "moslora" / "run.json").read_bytes() == before
