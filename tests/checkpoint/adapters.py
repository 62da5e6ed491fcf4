"""Saved adapters with random factors, and what they compute by the formula, taken from the live model."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from moslora import MosLoraConfig
from tests.checkpoint.toy import toy, words
from tests.helpers import randomize_adapters

EVERY_LAYER = {
    "target_modules": ["embed", "conv", "grouped", "first", "second"],
    "target_parameters": ["experts.up", "experts.down"],
}

# Name -> settings beside `mixer`; between them they use every setting that changes rank or scale.
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {"r": 4, "lora_alpha": 8},
    "rslora": {"r": 6, "lora_alpha": 3, "use_rslora": True},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "rank_pattern": {"first": 2, "conv": 6},
        "alpha_pattern": {"second": 3, "experts.*": 5, "conv": 1},
    },
}


def adapt(
    base: nn.Module, folder: Path, seed: int = 0, std: float = 0.3, dtype: torch.dtype | None = None, **config: Any
) -> PeftModel:
    """Adapt a model, give every adapter parameter a random value, save, and return the live model."""
    model = get_peft_model(base, MosLoraConfig(**config)).eval()
    randomize_adapters(model, seed, std)
    if dtype is not None:
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.data = parameter.data.to(dtype)
    model.save_pretrained(folder)
    return model


def adapted_toy(folder: Path, **config: Any) -> PeftModel:
    """A toy with an adapter on every layer, saved in `folder`."""
    return adapt(toy(), folder, **{**EVERY_LAYER, **config})


def expected_updates(model: PeftModel) -> dict[str, Tensor]:
    """delta W in float64 of each linear layer by the paper's formula, from the parameters of the live model."""
    updates = {}
    for name, layer in model.get_base_model().named_modules():
        if not hasattr(layer, "lora_A") or "default" not in layer.lora_A or not isinstance(layer.base_layer, nn.Linear):
            continue
        A, B = layer.lora_A["default"], layer.lora_B["default"].weight.double()
        r = layer.r["default"]
        if (mixer := getattr(A, "mixer", None)) is not None:
            product = mixer.double() @ A.raw.double()
        elif hasattr(A, "raw"):
            half = torch.eye(r // 2, dtype=torch.float64)
            product = torch.cat([torch.cat([half, half], 1)] * 2) @ A.raw.double()
        else:
            product = A.weight.double()
        updates[name] = layer.scaling["default"] * B @ product
    return updates


def outputs(model: nn.Module) -> Tensor:
    """What a toy says to the fixed inputs."""
    with torch.no_grad():
        return model(words())
