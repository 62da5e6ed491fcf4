"""Settings that training has in several tasks. Their docstrings are the help of the command-line flags."""

import dataclasses
from typing import Any, Literal

from ..errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """Which method, of which size, trained how long and how fast."""

    method: str = "moslora"
    """moslora, ts-mixing, lora, full or another name of docs/methods.md, or file:CONFIG.json for any method of PEFT."""
    rank: int = 16
    """Rank r of the adapter."""
    alpha: float = 32
    """The update is scaled by alpha / rank."""
    dropout: float = 0.05
    """Dropout before the adapter."""

    max_steps: int = 0
    """Optimizer steps; replaces `epochs` unless 0."""
    batch_size: int = 16
    """Samples per optimizer step, over all processes."""
    micro_batch_size: int = 4
    """Samples per forward pass. The loss is that of the whole batch, however it is split."""
    learning_rate: float = 3e-4
    """Peak learning rate of AdamW."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from 0."""
    lr_scheduler: str = "linear"
    """Schedule after the warm-up, by its transformers name."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 turns clipping off."""

    seed: int = 0
    """The one run seed; initialisation, data and dropout each have a stream of their own."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the frozen base and the computation; the adapter stays float32. auto: bfloat16 on a GPU that has it."""
    kernel: Literal["auto", "reference", "fused", "remat"] = "auto"
    """How adapted linear layers compute; reference is PEFT's own code, remat keeps the least memory."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""
    deterministic: bool = False
    """Only deterministic GPU kernels, for bitwise repetition there."""

    logging_steps: int = 10
    """Steps between two lines of metrics.jsonl."""
    skip_nonfinite: bool = False
    """Leave out updates from a loss or gradient that is not a number, and count them, instead of stopping."""
    save_steps: int = 200
    """Steps between two checkpoints."""
    checkpoint_limit: int = 2
    """Complete checkpoints kept during the run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerSettings(AdapterSettings):
    """What transformers' Trainer adds to them."""

    epochs: float = 3.0
    """Passes over the data."""
    validation_size: int = 0
    """Samples held out, whose loss is measured every `save_steps`."""
    keep_best: bool = False
    """Keep the checkpoint with the lowest validation loss instead of the last."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""
    deepspeed: str = ""
    """A DeepSpeed config: a .json file, or zero2 or zero3 for those of this package. Needs `pip install deepspeed`."""
    report_to: str = "none"
    """Also report to tensorboard, wandb, trackio, ...: whatever transformers knows."""


_POSITIVE = (
    "rank",
    "alpha",
    "epochs",
    "batch_size",
    "micro_batch_size",
    "logging_steps",
    "learning_rate",
    "save_steps",
    "checkpoint_limit",
)
_NOT_NEGATIVE = ("validation_size", "max_steps", "warmup_steps", "weight_decay", "max_grad_norm", "seed")


def problems(
    config: AdapterSettings, *, positive: tuple[str, ...] = (), not_negative: tuple[str, ...] = ()
) -> list[str]:
    """A sentence on every value, or pair of values, that cannot be used.

    Args:
        config: all settings.
        positive: names of a task's own settings that must be above 0.
        not_negative: names of its own settings that must not be below 0.
    """
    own: dict[str, Any] = dataclasses.asdict(config)
    found = [
        f"{name} is {own[name]}: it must be above 0"
        for name in (*_POSITIVE, *positive)
        if name in own and not own[name] > 0
    ]
    found += [
        f"{name} is {own[name]}: it must not be negative"
        for name in (*_NOT_NEGATIVE, *not_negative)
        if name in own and own[name] < 0
    ]
    if not 0 <= config.dropout < 1:
        found.append(f"dropout is {config.dropout}: it must be in [0, 1)")
    if config.micro_batch_size > 0 and config.batch_size % config.micro_batch_size:
        found.append(f"batch_size {config.batch_size} is not a multiple of micro_batch_size {config.micro_batch_size}")
    if config.logging_steps > 0 and config.save_steps % config.logging_steps:
        # A resumed run logs means over whole intervals only if it restarts at the end of one.
        found.append(f"save_steps {config.save_steps} is not a multiple of logging_steps {config.logging_steps}")
    if own.get("keep_best") and not own["validation_size"]:
        found.append("keep_best needs a validation_size")
    return found


def refuse(found: list[str]) -> None:
    """Raise ConfigError that lists the problems, if there are any."""
    if found:
        raise ConfigError("The settings cannot be used:\n  " + "\n  ".join(found))
