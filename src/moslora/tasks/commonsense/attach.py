"""From the settings of a run to the base model with its method attached."""

import dataclasses
from typing import TYPE_CHECKING, Any

import torch
import transformers
from torch import nn

from ... import methods, runs
from ...errors import ConfigError
from . import model
from .config import CommonsenseTrainConfig

if TYPE_CHECKING:
    import peft
    from transformers import PretrainedConfig


def adapter_config(config: CommonsenseTrainConfig) -> "peft.PeftConfig | None":
    """PEFT's config of the adapter; None for full fine-tuning.

    Raises:
        ConfigError: unknown method, or settings that it cannot have.
    """
    if config.method == methods.FULL:
        return None
    return methods.peft_config(config.method, rank=config.rank, **_settings(config))


def attach_adapter(base: nn.Module, config: CommonsenseTrainConfig) -> nn.Module:
    """The base with the method of the run, drawn from the run's stream "init".

    Raises:
        ConfigError: the model has none of the target modules, or the method cannot be used.
    """
    transformers.set_seed(runs.stream_seed(config.seed, "init"))
    try:
        return methods.attach(base, config.method, rank=config.rank, **_settings(config))
    except ConfigError as error:
        raise ConfigError(f"The adapter does not fit the model {config.model!r}: {error}") from error


def match_rank(config: CommonsenseTrainConfig, base_config: "PretrainedConfig") -> CommonsenseTrainConfig:
    """The settings with the rank that `config.match` asks for, and with alpha / rank unchanged.

    Raises:
        ConfigError: one of the two methods cannot be matched.
    """
    if not config.match:
        return config
    settings = _settings(config)
    with torch.device("meta"):
        base = model.empty_model(base_config, config.trust_remote_code)
        target = methods.parameters_at(config.match, base, rank=config.rank, **settings | {"kernel": "auto"})
        rank = methods.matched_rank(config.method, base, target, **settings)
    return dataclasses.replace(config, rank=rank, alpha=config.alpha * rank / config.rank)


def _settings(config: CommonsenseTrainConfig) -> dict[str, Any]:
    """All settings of a method but its rank."""
    targets = list(config.target_modules)
    return {
        "alpha": config.alpha,
        "dropout": config.dropout,
        "target_modules": "all-linear" if targets == ["all-linear"] else targets,
        "task_type": "CAUSAL_LM",
        "kernel": config.kernel,
    }
