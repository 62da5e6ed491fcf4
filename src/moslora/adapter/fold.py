"""From a live MoSLoRA to the plain LoRA that equals it: A := M @ A, at the same rank."""

import dataclasses
from typing import Any, TypeVar, cast

import torch
from peft import LoraConfig
from torch import Tensor, nn

from ..equation import fold
from ..errors import UnsupportedError
from .config import MosLoraConfig
from .layers import MixedLayer, forget_mixer, mixed

Model = TypeVar("Model", bound=nn.Module)


def to_lora(model: Model, adapter_name: str | None = None) -> Model:
    """Fold the mixers of a model into A, in place, so that its adapters are plain LoRA.

    The function of the model stays the same to one rounding: `B @ (M @ A)` for `B @ M @ A`. Its config becomes a
    `LoraConfig`, so `save_pretrained` then writes what stock PEFT and every other client of LoRA loads.

    Args:
        model: a PeftModel, or a transformers or diffusers model with MoSLoRA adapters added to it.
        adapter_name: which adapter; all of them when None.

    Returns:
        the same model.

    Raises:
        UnsupportedError: the model has no such MoSLoRA adapter, or it is merged.
    """
    chosen = _moslora_configs(model, adapter_name)
    configs = cast(dict[str, Any], model.peft_config)
    for name, config in chosen.items():
        fold_adapter(model, name)
        configs[name] = plain_config(config)
    if getattr(model, "peft_type", None) is not None and not _mixed_configs(configs):
        model.peft_type = next(iter(configs.values())).peft_type
    return model


def fold_adapter(model: nn.Module, adapter_name: str) -> None:
    """Fold the mixers of one adapter into A, in place, whatever its config says."""
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, MixedLayer):
                _fold_layer(layer, adapter_name)


def fold_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of a MoSLoRA adapter with learnable mixers (linear and convolution layers) as plain LoRA."""
    folded = {}
    for key, value in state_dict.items():
        if key.endswith(".raw"):
            prefix = key.removesuffix("raw")
            folded[f"{prefix}weight"] = fold(value, state_dict[f"{prefix}mixer"])
        elif not key.endswith(".mixer"):
            folded[key] = value
    return folded


def plain_config(config: MosLoraConfig) -> LoraConfig:
    """The LoraConfig with every setting of `config` but the mixer's."""
    fields = {field.name for field in dataclasses.fields(LoraConfig) if field.init}
    values = {name: getattr(config, name) for name in fields - {"peft_type", "task_type"}}
    plain = LoraConfig(task_type=config.task_type, **values)
    for name in ("modules_to_tie", "target_modules_to_tie"):
        if hasattr(config, name):
            setattr(plain, name, getattr(config, name))
    return plain


def _moslora_configs(model: nn.Module, adapter_name: str | None) -> dict[str, MosLoraConfig]:
    configs = _mixed_configs(getattr(model, "peft_config", {}))
    if adapter_name is not None:
        configs = {name: config for name, config in configs.items() if name == adapter_name}
    if not configs:
        found = ", ".join(getattr(model, "peft_config", {})) or "none"
        wanted = f"called {adapter_name!r} " if adapter_name else ""
        raise UnsupportedError(f"Found no MoSLoRA adapter {wanted}in this {type(model).__name__} (adapters: {found}).")
    return configs


def _mixed_configs(configs: dict[str, Any]) -> dict[str, MosLoraConfig]:
    return {name: config for name, config in configs.items() if isinstance(config, MosLoraConfig)}


def _fold_layer(layer: MixedLayer, name: str) -> None:
    if not mixed(layer, name):
        return
    if name in layer.merged_adapters:
        raise UnsupportedError(f"Adapter {name!r} is merged into the base weights: call unmerge_adapter() first.")
    if name in layer.lora_embedding_B:
        raw = layer.lora_embedding_B.raw(name)
        product = layer.lora_embedding_B.effective(name)
        forget_mixer(layer, name)
        layer.lora_embedding_B[name] = nn.Parameter(product, requires_grad=raw.requires_grad)
        return
    layer.lora_A[name].unmix()
