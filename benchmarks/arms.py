"""The adapters that are measured against each other, each put on the same frozen model."""

from collections.abc import Callable, Mapping
from typing import Any

import peft
import torch
from torch import Tensor, nn

from moslora import MosLoraConfig

FLOOR = "frozen"
LORA = "peft-lora"
LORA_FLOAT32 = "peft-lora-float32"


class AuthorsLinear(nn.Module):
    """The authors' forward pass: one more bias-free linear layer, r x r, between A and B, in plain autograd."""

    def __init__(self, base: nn.Linear, r: int, scale: float, p: float) -> None:
        super().__init__()
        factory = {"bias": False, "dtype": base.weight.dtype, "device": base.weight.device}
        self.base, self.scale, self.dropout = base, scale, nn.Dropout(p)
        self.down = nn.Linear(base.in_features, r, **factory)
        self.mixer = nn.Linear(r, r, **factory)
        self.up = nn.Linear(r, base.out_features, **factory)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + self.up(self.mixer(self.down(self.dropout(x)))) * self.scale


def attach(arm: str, model: nn.Module, *, r: int, p: float, targets: list[str]) -> nn.Module:
    """The model with the adapter of an arm; it is changed in place.

    Args:
        arm: one of `ARMS`.
        model: all of it is frozen here.
        r: rank; alpha is 2 r.
        p: dropout rate.
        targets: names of the layers to adapt.
    """
    model.requires_grad_(False)
    torch.manual_seed(0)
    return ARMS[arm](model, r, p, targets)


def _frozen(model: nn.Module, r: int, p: float, targets: list[str]) -> nn.Module:
    return model


def _authors(model: nn.Module, r: int, p: float, targets: list[str]) -> nn.Module:
    for name, module in list(model.named_modules()):
        if isinstance(module, nn.Linear) and name.rpartition(".")[2] in targets:
            parent = model.get_submodule(name.rpartition(".")[0])
            setattr(parent, name.rpartition(".")[2], AuthorsLinear(module, r, 2.0, p))
    return model


def _peft(config: type[peft.PeftConfig], float32: bool = False, **settings: Any) -> Callable[..., nn.Module]:
    def attach(model: nn.Module, r: int, p: float, targets: list[str]) -> nn.Module:
        dropout = {"lora_dropout": p} if issubclass(config, peft.LoraConfig) else {"module_dropout": p}
        alpha = {"lora_alpha": 2 * r} if issubclass(config, peft.LoraConfig) else {"alpha": 2 * r}
        ranks = {"init_r": r, "target_r": r} if config is peft.AdaLoraConfig else {"r": r}
        made = config(target_modules=targets, **dropout, **alpha, **ranks, **settings)
        return peft.get_peft_model(model, made, autocast_adapter_dtype=float32)

    return attach


ARMS: Mapping[str, Callable[..., nn.Module]] = {
    FLOOR: _frozen,
    LORA: _peft(peft.LoraConfig),
    LORA_FLOAT32: _peft(peft.LoraConfig, float32=True),
    "authors": _authors,
    "lora": _peft(MosLoraConfig, mixer="identity"),
    "moslora": _peft(MosLoraConfig),
    "moslora-float32": _peft(MosLoraConfig, float32=True),
    "moslora-reference": _peft(MosLoraConfig, kernel="reference"),
    "moslora-fused": _peft(MosLoraConfig, kernel="fused"),
    "moslora-remat": _peft(MosLoraConfig, kernel="remat"),
    "dora": _peft(peft.LoraConfig, use_dora=True),
    "adalora": _peft(peft.AdaLoraConfig, total_step=1000),
    "loha": _peft(peft.LoHaConfig),
    "lokr": _peft(peft.LoKrConfig),
}
