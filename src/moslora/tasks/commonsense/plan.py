"""What a run needs on cards of a given size: `estimate` for every kernel, and the largest micro-batch that fits."""

import dataclasses
import os
from collections import Counter
from typing import NamedTuple

import peft
from torch import nn

from ...adapter import Kernel
from ...errors import ConfigError
from ...methods import FULL, find_method
from ..estimate import Estimate
from ..progress import progress_bar
from .config import CommonsenseTrainConfig
from .estimate import EmptyRun

GIB = 2**30


class Kind(NamedTuple):
    """The adapted modules of one name, for example all q_proj."""

    name: str
    modules: int
    trainable: int


class Arm(NamedTuple):
    """One way to compute: its memory on each card, and the largest micro-batch that fits (0: not even one sample)."""

    kernel: str
    gradient_checkpointing: bool
    numbers: Estimate
    largest_micro_batch: int
    usable_micro_batch: int


class Plan(NamedTuple):
    """What `plan` found. `saved_bytes` is the size of the trained weights on disk."""

    config: CommonsenseTrainConfig
    gpus: int
    limit_bytes: int
    saved_bytes: int
    kinds: list[Kind]
    arms: list[Arm]


def plan(config: CommonsenseTrainConfig, *, gpus: int, gpu_memory: float, reserve: float) -> Plan:
    """Plan a run from the model's config alone.

    Data parallel: each card has all weights, gradients and optimizer states, and its share of the batch. Sharding is
    not estimated.

    Args:
        config: all settings. dtype "auto" is bfloat16, as on a card of today; kernel "auto" stands for each kernel.
        gpus: number of cards.
        gpu_memory: of each card, in GiB.
        reserve: what is left free on each for CUDA's context and fragmentation, in GiB.

    Raises:
        ConfigError: a setting, model config or method that cannot be used.
    """
    _check(config, gpus, gpu_memory, reserve)
    if config.dtype == "auto":
        config = dataclasses.replace(config, dtype="bfloat16")
    limit = int((gpu_memory - reserve) * GIB)
    kernels, checkpointing = _kernels(config), [True] if config.gradient_checkpointing else [False, True]
    arms = []
    with progress_bar() as bar:
        task = bar.add_task("planning", total=len(kernels) * len(checkpointing), note="")
        for kernel in kernels:
            run = EmptyRun(dataclasses.replace(config, kernel=kernel))
            for again in checkpointing:
                largest = largest_micro_batch(run, again, limit)
                numbers = run.estimate(config.micro_batch_size, again)
                usable = _largest_divisor(config.batch_size // gpus, largest)
                arms.append(Arm(kernel, again, numbers, largest, usable))
                bar.advance(task)
    return Plan(run.config, gpus, limit, saved_bytes(run), kinds(run.adapted), arms)


def largest_micro_batch(run: EmptyRun, gradient_checkpointing: bool, limit_bytes: int) -> int:
    """The largest number of samples per forward pass with which a run keeps within a limit; 0 if one is too many."""

    def needed(samples: int) -> int:
        return run.estimate(samples, gradient_checkpointing).bytes

    one, two = needed(1), needed(2)
    if one > limit_bytes:
        return 0
    # A straight line but for roundings: the guess is right or next to it, and is put right by looking.
    largest = 1 + (limit_bytes - one) // (two - one)
    while largest > 1 and needed(largest) > limit_bytes:
        largest -= 1
    while needed(largest + 1) <= limit_bytes:
        largest += 1
    return largest


def kinds(adapted: nn.Module) -> list[Kind]:
    """Trained parameters by the name of the module they belong to, in the order of the model.

    Args:
        adapted: what `attach_adapter` returned. In full fine-tuning each module counts by its own name.
    """
    parameters: Counter[str] = Counter()
    owners: dict[str, set[str]] = {}
    adapters = {name for name, module in adapted.named_modules() if hasattr(module, "base_layer")}
    for name, parameter in adapted.named_parameters():
        if not parameter.requires_grad:
            continue
        parts = name.split(".")
        prefixes = (".".join(parts[:length]) for length in range(1, len(parts)))
        owner = next((prefix for prefix in prefixes if prefix in adapters), ".".join(parts[:-1]))
        kind = owner.rpartition(".")[2]
        parameters[kind] += parameter.numel()
        owners.setdefault(kind, set()).add(owner)
    return [Kind(kind, len(owners[kind]), count) for kind, count in parameters.items()]


def saved_bytes(run: EmptyRun) -> int:
    """Bytes of the weights that a run saves, without the few of the file's header."""
    if run.full:
        return run.total * run.dtype.itemsize
    assert isinstance(run.adapted, peft.PeftModel)
    state = peft.get_peft_model_state_dict(run.adapted)
    return sum(tensor.numel() * tensor.element_size() for tensor in state.values())


def _kernels(config: CommonsenseTrainConfig) -> list[Kernel]:
    has_kernel = config.method != FULL and find_method(config.method).has_kernel
    return ["reference", "fused", "remat"] if has_kernel and config.kernel == "auto" else [config.kernel]


def _largest_divisor(number: int, most: int) -> int:
    return next((divisor for divisor in range(min(number, most), 0, -1) if number % divisor == 0), 0)


def _check(config: CommonsenseTrainConfig, gpus: int, gpu_memory: float, reserve: float) -> None:
    problems = []
    if gpus < 1:
        problems.append(f"gpus is {gpus}: it must be at least 1")
    elif config.batch_size % (gpus * max(1, config.micro_batch_size)):
        problems.append(
            f"batch_size {config.batch_size} is not a multiple of gpus {gpus} x micro_batch_size "
            f"{config.micro_batch_size}: change one of them"
        )
    if not 0 <= reserve < gpu_memory:
        problems.append(f"reserve is {reserve} GiB: it must be at least 0 and below gpu_memory, {gpu_memory} GiB")
    if "MOSLORA_KERNEL" in os.environ:
        problems.append("the environment variable MOSLORA_KERNEL would replace every kernel: unset it, use --kernel")
    if problems:
        raise ConfigError("The plan cannot be made:\n  " + "\n  ".join(problems))
