"""The demo from end to end."""

import pytest

from moslora import runs
from moslora.cli import main


@pytest.mark.slow
def test_the_demo_leaves_what_it_promises_and_repeats_no_finished_step(tmp_path, capfd):
    out = tmp_path / "demo"
    assert main(["demo", "--out", str(out)]) == 0
    printed = capfd.readouterr().out
    statistics = runs.read_json(out / "study" / "statistics.json")
    base = statistics["base"]["benchmarks"]
    assert {arm["method"] for arm in statistics["arms"]} == {"lora", "moslora"}
    for arm in statistics["arms"]:
        assert len(arm["seeds"]) == 2
        learned = [name for name, each in arm["benchmarks"].items() if each["mean"] > base[name]["accuracy"] + 0.1]
        assert len(learned) >= 4, arm["benchmarks"]
    assert (out / "study" / "report" / "report.html").is_file()
    assert (out / "exported" / "adapter_model.safetensors").is_file()
    assert "same best token everywhere in 50 of 50 prompts" in printed
    assert str(out.resolve()) in printed.splitlines()[-1]

    cell = out / "study" / "cells" / "moslora" / "lr0.003-f1.0-seed0" / "run.json"
    before = cell.read_bytes()
    assert main(["demo", "--out", str(out)]) == 0
    assert cell.read_bytes() == before
