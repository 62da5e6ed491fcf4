"""Launchers that would do something else than they were asked for are refused."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from moslora import runs
from moslora.errors import ConfigError, RunError
from moslora.resume import Checkpoints
from moslora.tasks.launch import announce, check_launch, deepspeed_config, world
from tests.tasks.engines import needs_deepspeed


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """One process that no launcher started."""
    for name in list(os.environ):
        if name.startswith(("ACCELERATE_", "FSDP_", "OMPI_")) or name in ("WORLD_SIZE", "RANK"):
            monkeypatch.delenv(name)
    return monkeypatch


def accelerate_launch(*flags: str) -> subprocess.CompletedProcess:
    code = (
        "import sys, torch\nfrom moslora.errors import ConfigError\nfrom moslora.tasks.launch import check_launch\n"
        "try:\n    check_launch()\nexcept ConfigError as error:\n    print('refused:', error)\n"
        "else:\n    print('accepted')\n"
    )
    words = [sys.executable, "-m", "accelerate.commands.launch", *flags, "--no_python", sys.executable, "-c", code]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(words, capture_output=True, text=True, env=environment, check=False)


@pytest.mark.skipif(torch.accelerator.is_available(), reason="with a GPU, accelerate starts several processes")
def test_accelerate_that_was_asked_for_two_processes_and_starts_one_is_noticed():
    done = accelerate_launch("--cpu", "--num_processes", "2")
    assert "refused: accelerate was asked for 2 processes and started one" in done.stdout, done.stderr[-2000:]
    assert "torchrun --nproc-per-node N -m moslora train" in done.stdout
    assert "accepted" in accelerate_launch("--cpu", "--num_processes", "1").stdout


def test_processes_of_mpirun_are_refused(alone):
    alone.setenv("OMPI_COMM_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="mpirun started several processes"):
        check_launch()


@pytest.mark.parametrize(
    ("settings", "gpu", "deepspeed", "message"),
    [
        ({"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, False, "", "asks for FSDP2, and there is no GPU"),
        ({"ACCELERATE_USE_FSDP": "true"}, True, "", "asks for FSDP 1"),
        pytest.param(
            {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"},
            True,
            "zero3",
            "exclude each other",
            marks=needs_deepspeed,
        ),
        ({"ACCELERATE_USE_DEEPSPEED": "true"}, True, "", "Choose it with --deepspeed zero2"),
    ],
)
def test_configs_of_accelerate_that_would_not_happen_are_refused(alone, settings, gpu, deepspeed, message):
    alone.setattr(torch.accelerator, "is_available", lambda: gpu)
    for name, value in {"WORLD_SIZE": "2", **settings}.items():
        alone.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        check_launch(deepspeed)


def test_fsdp2_on_gpus_is_accepted(alone):
    alone.setattr(torch.accelerator, "is_available", lambda: True)
    for name, value in {"WORLD_SIZE": "2", "ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}.items():
        alone.setenv(name, value)
    check_launch()


def test_deepspeed_is_refused_by_a_task_that_has_no_use_for_it(alone):
    for name, value in {"WORLD_SIZE": "2", "ACCELERATE_USE_DEEPSPEED": "true"}.items():
        alone.setenv(name, value)
    with pytest.raises(ConfigError, match=r"DeepSpeed is not for this task: .* FSDP2 spreads the frozen weights"):
        check_launch(has_deepspeed=False)


@needs_deepspeed
def test_deepspeed_without_torchrun_is_refused(alone):
    with pytest.raises(ConfigError, match="--deepspeed needs torchrun, for one process as well"):
        check_launch("zero2")


def test_an_unknown_deepspeed_config_names_the_known_ones():
    with pytest.raises(ConfigError, match="no DeepSpeed config 'zero9': choose zero2, zero3"):
        deepspeed_config("zero9")


def accelerator(processes: int, kind: str) -> SimpleNamespace:
    """What `world` looks at."""
    return SimpleNamespace(
        num_processes=processes, distributed_type=SimpleNamespace(value=kind), device=torch.device("cpu")
    )


def test_a_world_that_is_not_the_one_started_is_an_error(alone):
    assert world(accelerator(1, "NO")) == {"processes": 1, "engine": "none", "backend": None, "device": "cpu"}
    alone.setenv("WORLD_SIZE", "2")
    with pytest.raises(RunError, match="started 2 processes, but 1 train together"):
        world(accelerator(1, "NO"))
    alone.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(RunError, match="accelerate turned it into MULTI_CPU"):
        world(accelerator(2, "MULTI_CPU"))


def test_checkpoints_of_another_engine_are_refused(tmp_path: Path):
    run = runs.Run.open(tmp_path / "run", task="commonsense", config={}, inputs={})
    run.record["world"] = {"processes": 2, "engine": "fsdp2", "backend": "nccl", "device": "cuda"}
    announce(run, accelerator(1, "NO"), 8)  # no checkpoint yet: begun again
    assert [each["engine"] for each in run.record["earlier_worlds"]] == ["fsdp2"]
    run.record["world"] = run.record["earlier_worlds"][0]
    checkpoints = Checkpoints(run.folder)
    checkpoints.folder(2).mkdir(parents=True)
    checkpoints.seal(2, 1)
    with pytest.raises(RunError, match="written under fsdp2 and cannot be read under none"):
        announce(run, accelerator(1, "NO"), 8)
