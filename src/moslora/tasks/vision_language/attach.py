"""From the settings of a run to the base model with one adapter over both of its parts."""

import re
from typing import Any

import peft
import transformers
from peft.utils.constants import DUMMY_TARGET_MODULES
from torch import nn

from ... import methods, runs
from ...errors import ConfigError
from .config import ADAPTER, PROJECTOR, VisionLanguageTrainConfig
from .model import LANGUAGE_MODEL, TOWER
from .projector import MODULE

ALL_LINEAR, NONE = ("all-linear",), ("none",)


def attach_adapter(base: nn.Module, config: VisionLanguageTrainConfig) -> nn.Module:
    """The base with the method of the run, drawn from the run's stream "init".

    Raises:
        ConfigError: the model has none of the target modules, or the method cannot be used.
    """
    transformers.set_seed(runs.stream_seed(config.seed, "init"))
    if config.train == PROJECTOR:
        return _attach_projector_alone(base)
    if config.method == methods.FULL:
        return methods.attach(base, config.method, kernel=config.kernel)
    try:
        adapted = methods.attach(base, config.method, rank=config.rank, **adapter_settings(base, config))
    except ConfigError as error:
        raise ConfigError(f"The adapter does not fit the model {config.model!r}: {error}") from error
    return _in_float32(adapted)


def adapter_settings(base: Any, config: VisionLanguageTrainConfig) -> dict[str, Any]:
    """All settings of a method but its rank.

    Args:
        base: the model, on any device; its modules are looked up.
        config: all settings.

    Raises:
        ConfigError: a part has none of the layers that are named.
    """
    settings: dict[str, Any] = {
        "alpha": config.alpha,
        "dropout": config.dropout,
        "target_modules": _layers(base, LANGUAGE_MODEL, config.target_modules),
        "task_type": "CAUSAL_LM",
        "kernel": config.kernel,
    }
    if config.train != ADAPTER:
        settings["modules_to_save"] = [MODULE]
    if config.vision_target_modules == NONE:
        return settings
    layers = _layers(base, TOWER, config.vision_target_modules, used_tower_layers(base))
    settings["target_modules"] += f"|{layers}"
    in_tower = rf".*{TOWER}.*"
    if config.vision_rank != config.rank:
        settings["rank_pattern"] = {in_tower: config.vision_rank}
    if config.vision_alpha != config.alpha:
        settings["alpha_pattern"] = {in_tower: config.vision_alpha}
    if not config.vision_mixer and "mixer_pattern" in methods.find_method(config.method).patterns:
        settings["mixer_pattern"] = {in_tower: "identity"}
    return settings


def used_tower_layers(base: Any) -> int:
    """Layers of the vision tower on which the projector's input depends: LLaVA 1.5 leaves the last one out.

    An adapter in the others would never get a gradient.
    """
    layers = base.config.vision_config.num_hidden_layers
    chosen = base.config.vision_feature_layer
    chosen = [chosen] if isinstance(chosen, int) else chosen
    return max(place if place >= 0 else layers + 1 + place for place in chosen)


def _layers(base: nn.Module, part: str, wanted: tuple[str, ...], used: int | None = None) -> str:
    """A regex of the layers of one part, in the first `used` of its blocks."""
    inside = [name for name, module in base.named_modules() if f".{part}." in name and isinstance(module, nn.Linear)]
    present = sorted({name.rpartition(".")[2] for name in inside})
    chosen = present if wanted == ALL_LINEAR else [name for name in wanted if name in present]
    if not chosen:
        raise ConfigError(f"{part} has none of the layers {', '.join(wanted)}; it has {', '.join(present)}")
    blocks = "" if used is None else rf"layers\.({'|'.join(map(str, range(used)))})\.(.*\.)?"
    return rf"(.*\.)?{part}\.(.*\.)?{blocks}({'|'.join(map(re.escape, chosen))})"


def _attach_projector_alone(base: nn.Module) -> nn.Module:
    """A PEFT model that trains a copy of the projector and nothing else, so that checkpoints hold no more than that."""
    config = peft.LoraConfig(target_modules=DUMMY_TARGET_MODULES, modules_to_save=[MODULE], task_type="CAUSAL_LM")
    return _in_float32(peft.get_peft_model(base, config))


def _in_float32(adapted: nn.Module) -> nn.Module:
    """Trained weights in float32, as PEFT makes its adapters, but not its copy of the projector."""
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return adapted
