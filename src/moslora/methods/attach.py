"""From a base model to one that is ready to be trained with a method."""

import math
from typing import Any

import peft
from peft.optimizers import create_loraplus_optimizer
from torch import nn
from torch.optim import Optimizer

from ..errors import ConfigError
from .zoo import FULL, find_method, peft_config


def attach(base: nn.Module, method: str, **settings: Any) -> nn.Module:
    """A model whose trained parameters are those of a method.

    Args:
        base: one of transformers' models, on any device; it is changed in place.
        method: as for `peft_config`, or "full".
        settings: as for `peft_config`; "full" has none.

    Returns:
        a PeftModel; the base itself, with every parameter trained, for "full".

    Raises:
        ConfigError: a method or setting that cannot be used, or that does not fit the model.
    """
    if method == FULL:
        if settings.get("kernel", "auto") != "auto":
            raise ConfigError(f"Method {FULL!r} has no adapter and no kernel: leave the kernel out.")
        return base.requires_grad_(True)
    found, config = find_method(method), peft_config(method, **settings)
    if next(base.parameters()).is_meta and str(getattr(config, "init_lora_weights", "")).startswith("pissa"):
        config.init_lora_weights = True  # no numbers, no singular vectors
    try:
        adapted: nn.Module = peft.get_peft_model(base, config)
    except (ValueError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"Method {method!r} does not fit this {type(base).__name__}: {error}") from error
    _freeze_rank_numbers(adapted)
    if found.start is not None:
        found.start(adapted)
    return adapted


def trained_parameters(model: nn.Module) -> int:
    """How many numbers of a model are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def create_optimizer(
    model: nn.Module, method: str, optimizer_class: type[Optimizer], *, lr: float, weight_decay: float, **settings: Any
) -> Optimizer | None:
    """The optimizer of a method that trains B faster than A; None for a method that needs none of its own.

    Args:
        model: what `attach` returned.
        method: its name.
        optimizer_class: for example torch.optim.AdamW.
        lr: learning rate of A.
        weight_decay: of every group.
        settings: passed on to the class.

    Source: LoRA+, arXiv:2402.12354, through PEFT's own grouping of parameters.
    """
    if method == FULL or math.isclose(ratio := find_method(method).rate_of_B, 1.0):
        return None
    assert isinstance(model, peft.PeftModel)
    return create_loraplus_optimizer(
        model, optimizer_class, lr=lr, loraplus_lr_ratio=ratio, loraplus_weight_decay=weight_decay, **settings
    )


def _freeze_rank_numbers(adapted: nn.Module) -> None:
    """AdaLoRA's `ranknum` is a constant, but on the meta device PEFT leaves it among the trained parameters."""
    for name, parameter in adapted.named_parameters():
        if ".ranknum." in name:
            parameter.requires_grad_(False)
