"""Every script in examples/ runs as it stands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT, run_stock_peft

SCRIPTS = sorted((ROOT / "examples").glob("*.py"))


def _run(script: Path, *arguments: object) -> str:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    words = [sys.executable, "-W", "ignore", str(script), *map(str, arguments)]
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_every_example_says_how_it_is_called(script):
    assert f"python examples/{script.name}" in script.read_text()


def test_quickstart_learns_and_leaves_a_plain_lora(tmp_path):
    printed = _run(ROOT / "examples" / "quickstart.py", tmp_path / "lora")
    losses = [float(line.rpartition(" ")[2]) for line in printed.splitlines() if line.startswith("step")]
    assert losses[-1] < 0.5 * losses[0]
    found = run_stock_peft(
        "import peft; print(peft.PeftConfig.from_pretrained(args[0]).peft_type.value)", tmp_path / "lora"
    )
    assert found == "LORA\n"
