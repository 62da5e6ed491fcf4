"""Versions, devices, what will be fast here, and what is known to be wrong on this machine.

`examine` looks, `diagnose` compares what it saw with the table RULES. Each row of the table was met in practice.
"""

import importlib
import importlib.metadata
import importlib.util
import os
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from . import runs

OPTIONAL = (
    *("bitsandbytes", "triton", "diffusers", "deepspeed", "gguf"),
    *("torchvision", "torchao", "optimum-quanto", "hqq"),
)
TRITON_CAPABILITY = (8, 0)  # A100: the oldest that moslora's Triton kernels run on


class GPU(NamedTuple):
    """One CUDA device."""

    name: str
    memory_bytes: int
    capability: tuple[int, int]
    bf16: bool


class Machine(NamedTuple):
    """What was seen. `versions` has None for an optional package that is missing; errors are empty where all is well.

    `requirements` are moslora's own, as PEP 508 lines; None if moslora was not installed with pip.
    """

    versions: dict[str, str | None]
    requirements: list[str] | None
    cpu: str
    cores: int
    cpu_flags: frozenset[str]
    gpus: list[GPU]
    torch_cuda: str | None
    moslora_error: str
    torchvision_error: str
    environment: dict[str, str]


class Finding(NamedTuple):
    """Something wrong: the condition that holds here, what follows from it, and what to do."""

    condition: str
    what: str
    do: str
    fatal: bool = False


def _installed(name: str) -> Callable[[Machine], bool]:
    return lambda machine: machine.versions.get(name) is not None


# When it holds, and what is then to be said.
RULES: tuple[tuple[Callable[[Machine], bool], Finding], ...] = (
    (
        lambda machine: bool(machine.moslora_error),
        Finding("moslora does not import", "nothing works: {moslora_error}", "pip install moslora again", fatal=True),
    ),
    (
        lambda machine: machine.requirements is None,
        Finding("moslora is not installed", "supported versions cannot be checked", "pip install . in its folder"),
    ),
    (
        lambda machine: bool(machine.torchvision_error),
        Finding(
            "torchvision does not import",
            "image processors that need it fail: {torchvision_error}",
            "install the torchvision built for this torch, or uninstall it: moslora does not need it",
        ),
    ),
    (
        lambda machine: _installed("bitsandbytes")(machine) and "avx512_bf16" in machine.cpu_flags,
        Finding(
            "bitsandbytes on a CPU with AVX512-BF16",
            "the first forward pass in eval mode repacks 4-bit weights; gradients and merging are then silently wrong",
            "nothing for moslora's methods, which turn the repacking off; for others set "
            "support_avx512bf16_for_cpu = False on every Linear4bit",
        ),
    ),
    (
        _installed("optimum-quanto"),
        Finding(
            "optimum-quanto is installed",
            "PEFT merges an adapter into quanto layers silently wrong",
            "do not merge into a quanto base: use bitsandbytes 8-bit, or merge into the unquantised model",
        ),
    ),
    (
        lambda machine: _installed("torchao")(machine) and not machine.gpus,
        Finding("torchao without a GPU", "its int4 packings fail on a CPU", "use its int8"),
    ),
    (
        lambda machine: not machine.gpus,
        Finding(
            "no GPU: accelerate on a CPU",
            "`accelerate launch --cpu --num_processes 2` starts one process, and FSDP2 becomes something else, both "
            "in silence",
            "start several processes with torchrun",
        ),
    ),
    (
        lambda machine: machine.torch_cuda is not None and not machine.gpus,
        Finding("torch is built for CUDA, but sees no GPU", "all runs on the CPU", "look at the driver: nvidia-smi"),
    ),
)


def examine() -> Machine:
    """Look at this machine. Never fails because of a broken package: the error is kept instead."""
    versions: dict[str, str | None] = {**runs.versions(), **{name: _version(name) for name in OPTIONAL}}
    cpu, flags = _cpu()
    moslora_error = _import_error("moslora.adapter")
    gpus, torch_cuda = ([], None) if _import_error("torch") else _cuda()
    known = ("MOSLORA_KERNEL", "MOSLORA_TRITON", "DS_ACCELERATOR", "OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES")
    return Machine(
        versions=versions,
        requirements=_requirements(),
        cpu=cpu,
        cores=os.cpu_count() or 1,
        cpu_flags=flags,
        gpus=gpus,
        torch_cuda=torch_cuda,
        moslora_error=moslora_error,
        torchvision_error=_import_error("torchvision") if versions["torchvision"] else "",
        environment={name: os.environ[name] for name in known if name in os.environ},
    )


def diagnose(machine: Machine) -> list[Finding]:
    """What is known to be wrong on a machine, the worst first."""
    found = [
        finding._replace(what=finding.what.format(**machine._asdict())) for holds, finding in RULES if holds(machine)
    ]
    found += _outside_range(machine)
    return sorted(found, key=lambda finding: not finding.fatal)


def fast_here(machine: Machine) -> list[tuple[str, str, str]]:
    """What the settings called auto take on a machine: (setting, choice, why)."""
    kernel = machine.environment.get("MOSLORA_KERNEL")
    bf16 = bool(machine.gpus) and machine.gpus[0].bf16
    return [
        ("kernel auto", kernel, "MOSLORA_KERNEL is set and wins")
        if kernel
        else ("kernel auto", "fused", "less memory; PEFT's own code for fewer than 64 rows, DoRA, torch.compile"),
        ("Triton kernels", *_triton(machine)),
        ("dtype auto", "bfloat16", "the GPU computes in it")
        if bf16
        else ("dtype auto", "float32", "the GPU has no bfloat16" if machine.gpus else "no GPU"),
        ("bfloat16 on the CPU", "native", "AVX512-BF16 or AMX")
        if {"avx512_bf16", "amx_bf16"} & machine.cpu_flags
        else ("bfloat16 on the CPU", "emulated", "no AVX512-BF16 or AMX was seen: float32 may be faster"),
    ]


def as_json(machine: Machine) -> dict[str, Any]:
    """Everything, as data for a bug report."""
    return {
        "machine": machine._asdict()
        | {"cpu_flags": sorted(machine.cpu_flags), "gpus": [gpu._asdict() for gpu in machine.gpus]},
        "fast": [dict(zip(("setting", "choice", "why"), row, strict=True)) for row in fast_here(machine)],
        "findings": [finding._asdict() for finding in diagnose(machine)],
    }


def _triton(machine: Machine) -> tuple[str, str]:
    if not machine.gpus:
        return "no", "no GPU"
    if machine.versions.get("triton") is None:
        return "no", "Triton is not installed: pip install 'moslora[triton]'"
    if machine.gpus[0].capability < TRITON_CAPABILITY:
        return "no", "the GPU is older than compute capability 8.0"
    if machine.environment.get("MOSLORA_TRITON") != "1":
        return "no", "usable, but off unless MOSLORA_TRITON=1 is set"
    return "yes", "MOSLORA_TRITON=1"


def _outside_range(machine: Machine) -> list[Finding]:
    from packaging.requirements import Requirement

    found = []
    for requirement in map(Requirement, machine.requirements or []):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        version = machine.versions.get(requirement.name) or _version(requirement.name)
        install = f"pip install '{requirement.name}{requirement.specifier}'"
        if version is None:
            found.append(Finding(f"{requirement.name} is missing", "moslora needs it", install, fatal=True))
        elif not requirement.specifier.contains(version, prereleases=True):
            range_ = f"moslora is tested with {requirement.name}{requirement.specifier} only"
            found.append(Finding(f"{requirement.name} {version} is outside the supported range", range_, install))
    return found


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _requirements() -> list[str] | None:
    try:
        return importlib.metadata.requires("moslora") or []
    except importlib.metadata.PackageNotFoundError:
        return None


def _import_error(name: str) -> str:
    """Why a module cannot be imported, in one line; empty if it can."""
    try:
        importlib.import_module(name)
    except Exception as error:  # whatever a foreign package raises is what is looked for
        return f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    return ""


def _cuda() -> tuple[list[GPU], str | None]:
    import torch

    gpus = []
    for index in range(torch.cuda.device_count()):
        seen = torch.cuda.get_device_properties(index)
        with torch.cuda.device(index):
            bf16 = torch.cuda.is_bf16_supported()
        gpus.append(GPU(seen.name, seen.total_memory, (seen.major, seen.minor), bf16))
    return gpus, torch.version.cuda


def _cpu() -> tuple[str, frozenset[str]]:
    """Model and flags of the CPU; without flags where the system does not tell them in /proc/cpuinfo."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    return fields.get("model name") or platform.processor() or platform.machine(), frozenset(
        fields.get("flags", "").split()
    )
