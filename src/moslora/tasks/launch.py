"""Which processes train together, and how they share the work. What launchers change in silence is an error here."""

import importlib.util
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from .. import runs
from ..errors import ConfigError, RunError
from ..resume import Checkpoints
from .processes import joined

if TYPE_CHECKING:
    from accelerate import Accelerator

FOLDER = Path(__file__).parents[1] / "recipes" / "launch"
START = "torchrun --nproc-per-node N -m moslora train ..."
LAUNCHERS = ("launch", "accelerate-launch", "accelerate.commands.launch")  # the ways to call accelerate's
MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")  # where mpirun's flavours say how many they started


def check_launch(deepspeed: str = "", *, has_deepspeed: bool = True) -> None:
    """Raise ConfigError where the launcher asked for something that would not happen. To be called before loading.

    Args:
        deepspeed: the setting of that name.
        has_deepspeed: whether the task can use it.
    """
    if "WORLD_SIZE" not in os.environ and any(int(os.environ.get(name, "1")) > 1 for name in MPI):
        raise ConfigError(f"mpirun started several processes, which do not know of each other. Use: {START}")
    if "WORLD_SIZE" not in os.environ and (asked := _asked_of_accelerate()) > 1:
        raise ConfigError(
            f"accelerate was asked for {asked} processes and started one: it starts several only on several GPUs. "
            f"Start them with: {START}"
        )
    fsdp, plugin = _switched_on("ACCELERATE_USE_FSDP"), _switched_on("ACCELERATE_USE_DEEPSPEED")
    if plugin and not has_deepspeed:
        raise ConfigError(
            "DeepSpeed is not for this task: only its adapters have gradients and optimizer states, and FSDP2 spreads "
            f"the frozen weights. Start it with: {START}, or with accelerate and {FOLDER / 'fsdp2.yaml'}."
        )
    if plugin:
        raise ConfigError(
            "accelerate's config asks for DeepSpeed, with numbers of its own for batches and precision. Choose it with "
            f"--deepspeed zero2, zero3 or FILE.json instead, and start with: {START}"
        )
    if deepspeed and deepspeed_config(deepspeed) and "WORLD_SIZE" not in os.environ:
        raise ConfigError(f"--deepspeed needs torchrun, for one process as well: {START}")
    if fsdp:
        _check_fsdp(deepspeed)


def deepspeed_config(name: str) -> str:
    """Path of a DeepSpeed config.

    Args:
        name: of one that comes with the package, such as zero2, or the path of a .json file.

    Raises:
        ConfigError: there is none, or DeepSpeed is not installed.
    """
    path = Path(name) if name.endswith(".json") else FOLDER / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in FOLDER.glob("*.json")))
        raise ConfigError(f"There is no DeepSpeed config {name!r}: choose {known}, or give the path of a .json file.")
    if importlib.util.find_spec("deepspeed") is None:
        raise ConfigError(f"--deepspeed {name} needs DeepSpeed: pip install deepspeed.")
    return str(path)


def world(accelerator: "Accelerator") -> dict[str, Any]:
    """Number of processes, the engine that joins them, and its backend, as they really are.

    Raises:
        RunError: they are not what the launcher was asked for.
    """
    processes, started = accelerator.num_processes, int(os.environ.get("WORLD_SIZE", "1"))
    kind = accelerator.distributed_type.value
    engine = {"DEEPSPEED": "deepspeed", "FSDP": "fsdp2"}.get(kind, "ddp" if processes > 1 else "none")
    if processes != started:
        raise RunError(f"The launcher started {started} processes, but {processes} train together. Use: {START}")
    if _switched_on("ACCELERATE_USE_FSDP") and engine != "fsdp2":
        raise RunError(f"FSDP2 was asked for, and accelerate turned it into {kind}. Use several GPUs, or: {START}")
    if engine == "deepspeed":
        engine = f"deepspeed zero-{accelerator.state.deepspeed_plugin.zero_stage}"
    backend = torch.distributed.get_backend() if joined() else None
    return {"processes": processes, "engine": engine, "backend": backend, "device": accelerator.device.type}


def announce(run: runs.Run, accelerator: "Accelerator", batch_size: int) -> None:
    """Print the world of a run to stderr and store it in run.json, as `world`.

    Raises:
        RunError: it is not what was asked for, or cannot read the checkpoints of an interrupted run.
    """
    found = world(accelerator)
    before = run.record.get("world", found)
    if Checkpoints(run.folder).complete():
        _check_resumed(before, found)
    if before != found:
        run.record.setdefault("earlier_worlds", []).append(before)
    run.record["world"] = found
    run.save()
    if runs.is_main_process():
        several = f"es ({found['engine']}, {found['backend']})" if found["processes"] > 1 else ""
        line = f"{found['processes']} process{several} on {found['device']}, {batch_size} samples a step in all"
        print(line, file=sys.stderr)


def _check_resumed(before: dict[str, Any], now: dict[str, Any]) -> None:
    """Each way of sharding has checkpoints of its own."""
    kinds = [each["engine"].replace("ddp", "none") for each in (before, now)]
    if kinds[0] != kinds[1]:
        raise RunError(
            f"The run's checkpoints were written under {before['engine']} and cannot be read under {now['engine']}. "
            "Start it as it was begun, with any number of processes, or begin another run."
        )


def _check_fsdp(deepspeed: str) -> None:
    if deepspeed:
        raise ConfigError("FSDP (of accelerate's config) and --deepspeed exclude each other: choose one.")
    if not torch.accelerator.is_available():
        raise ConfigError(
            "accelerate's config asks for FSDP2, and there is no GPU: accelerate would turn it into plain data "
            f"parallel training without a word. For that, start with: {START}"
        )
    if os.environ.get("FSDP_VERSION", "1") != "2":
        raise ConfigError(
            "accelerate's config asks for FSDP 1, whose flat parameters hide which of them are trained. Set "
            f"fsdp_version: 2, or take {FOLDER / 'fsdp2.yaml'}."
        )


def _switched_on(variable: str) -> bool:
    return os.environ.get(variable, "false").lower() in ("1", "true", "yes", "on")


def _asked_of_accelerate() -> int:
    """Processes that the `accelerate launch` above this process was asked for; 1 if there is none above it."""
    if "ACCELERATE_MIXED_PRECISION" not in os.environ:  # every way of `accelerate launch` sets it
        return 1
    import psutil  # type: ignore[import-untyped]
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    try:
        words = psutil.Process().parent().cmdline()
    except (psutil.Error, AttributeError):
        return 1
    starts = [number for number, word in enumerate(words) if Path(word).name in LAUNCHERS]
    if not starts:
        return 1
    asked = launch_command_parser().parse_args(words[starts[0] + 1 :])
    has_file = asked.config_file or (os.path.isfile(default_config_file) and not asked.cpu)
    in_file = load_config_from_file(asked.config_file).num_processes if has_file else 1
    return asked.num_processes or in_file or 1
