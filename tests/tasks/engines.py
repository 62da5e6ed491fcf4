"""Start training under an engine, in several processes on the CPU."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from moslora import runs
from tests.helpers import ROOT, adapter_weights

PROCESS = Path(__file__).with_name("engine_process.py")
FSDP2 = ROOT / "src" / "moslora" / "recipes" / "launch" / "fsdp2.yaml"
needs_deepspeed = pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="needs DeepSpeed, which is in no extra: `DS_BUILD_OPS=0 pip install deepspeed==0.19.8`",
)


def fsdp2_environment() -> dict[str, str]:
    """What `accelerate launch --config_file fsdp2.yaml` tells its processes."""
    settings = yaml.safe_load(FSDP2.read_text())["fsdp_config"]
    return {"ACCELERATE_USE_FSDP": "true", **{name.upper(): str(value) for name, value in settings.items()}}


def start(engine: str, processes: int, arguments: list[str], stop: int = 0) -> None:
    """Train under `none`, `ddp`, `fsdp2`, `zero2` or `zero3`; with `stop`, die when that step's checkpoint is there."""
    words = [sys.executable, "-W", "ignore"]
    if engine != "none":
        words += ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    words += [str(PROCESS), engine, str(stop), *arguments]
    words += ["--deepspeed", engine] if engine.startswith("zero") else []
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path]),
        **(fsdp2_environment() if engine == "fsdp2" else {}),
    }
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=False)
    assert (done.returncode != 0) == bool(stop), done.stderr[-8000:]


def difference(found: Path, expected: Path) -> float:
    """Largest absolute difference between the saved adapters of two runs, which must be of the same tensors."""
    one, two = map(adapter_weights, (found, expected))
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in two.items()}
    return max(float((one[name] - two[name]).abs().max()) for name in one)


def losses(run: Path) -> list[float]:
    """The losses that a run has logged."""
    return [row["loss"] for row in runs.read_rows(run / "metrics.jsonl") if "loss" in row]
