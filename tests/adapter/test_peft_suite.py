"""A bounded part of PEFT's own test-suite with MosLoraConfig in the place of LoraConfig."""

import json
import re
import subprocess
import sys

import pytest

from benchmarks.peft_suite import EXPECTED, problems_of, reason_for
from tests.helpers import ROOT

FILES = ["test_config.py", "test_lora_variants.py", "test_lorafa.py", "test_low_level_api.py", "test_other.py"]


@pytest.mark.slow
@pytest.mark.network
def test_what_passes_with_lora_passes_with_moslora(tmp_path):
    results = tmp_path / "results.json"
    command = [sys.executable, ROOT / "benchmarks" / "peft_suite.py", "--results", results, "--only", *FILES]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    counts = json.loads(results.read_text())["counts"]
    assert counts["pass_with_lora"] > 80


def test_the_committed_run_is_complete_and_every_difference_has_a_reason():
    report = json.loads((ROOT / "benchmarks" / "results" / "peft_suite.json").read_text())
    counts = report["counts"]
    assert counts["pass_with_lora"] > 3000
    assert counts["pass_with_lora"] - counts["pass_with_moslora"] == counts["differ"] == len(report["differences"])
    assert not problems_of(report, full=True)
    for test in report["differences"]:
        assert test["reason"] == reason_for(test["id"]), "the reasons changed after the run"


def test_an_unlisted_difference_and_a_stale_entry_are_problems():
    difference = {"id": "tests/test_new.py::test_it", "message": "assert 1 == 2", "reason": None}
    report = {"counts": {"pass_with_lora": 1}, "differences": [difference]}
    assert problems_of(report, full=False) == ["UNEXPECTED tests/test_new.py::test_it: assert 1 == 2"]
    assert sum(problem.startswith("STALE") for problem in problems_of(report, full=True)) == len(EXPECTED)
    empty = {"counts": {"pass_with_lora": 0}, "differences": []}
    assert "No test was compared" in problems_of(empty, full=False)[0]


def test_a_plain_failure_has_no_reason():
    assert reason_for("tests/test_custom_models.py::TestPeftCustomModel::test_merge_layers[Linear]") is None
    for pattern in EXPECTED:
        re.compile(pattern)
