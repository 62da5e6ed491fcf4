"""Results files: what was measured, on what, with what; and the guard that correctness comes before speed."""

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch

from moslora import ops, runs
from moslora.ops.autograd import TRITON_VARIABLE

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "benchmarks" / "results"


def require_correct(*tests: str) -> None:
    """End the program unless tests of what is timed pass: a wrong result has no speed."""
    print(f"{', '.join(tests)} ...", end=" ", flush=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}"}
    words = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-o",
        "addopts=",
        "-p",
        "no:cacheprovider",
        "-m",
        "not slow",
        *tests,
    ]
    done = subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    print(done.stdout.strip().splitlines()[-1] if done.stdout else done.stderr[-500:])
    if done.returncode:
        sys.exit(f"Tests of what is to be timed fail, so nothing is timed: run `pytest {' '.join(tests)}`.")


def device_name(device: str) -> str:
    """The GPU's name, or the processor's."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def write(name: str, device: str, settings: dict[str, Any], measured: dict[str, Any]) -> Path:
    """Write `benchmarks/results/NAME.json`, and say where."""
    about = {"device": device_name(device), "threads": torch.get_num_threads(), "versions": runs.versions()}
    about["environment"] = {name: os.environ.get(name) for name in (ops.VARIABLE, TRITON_VARIABLE)}
    path = FOLDER / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({**about, "settings": settings, **measured}, indent=2) + "\n", encoding="utf-8")
    print(f"written: {path.relative_to(ROOT)}")
    return path


def print_table(title: str, header: list[str], rows: list[list[str]]) -> None:
    """Print rows with rich."""
    from rich.console import Console
    from rich.table import Table

    table = Table(*header, title=title)
    for row in rows:
        table.add_row(*row)
    Console().print(table)
