"""The forward pass of an adapted linear layer through `moslora.ops`, where it means the same as PEFT's own.

PEFT's code runs wherever it does more than `base(x) + sum of updates`: merged or disabled adapters, mixed batches,
variants such as DoRA, a bias in B, factors that something has hooked. Layers that are not linear never come here.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any

import torch
from peft.tuners.lora.layer import Linear, LoraLayer
from torch import Tensor, nn

from ..errors import UnsupportedError
from ..ops import Kernel, choose_tier, is_whole, mixed_lora, wanted_kernel
from .modules import MixedLinear

if TYPE_CHECKING:
    from .layers import MixedLayer

LINEAR_CLASSES: tuple[type[LoraLayer], ...] = (Linear,)
try:
    from peft.tuners.lora.bnb import Linear4bit, Linear8bitLt

    LINEAR_CLASSES += (Linear8bitLt, Linear4bit)
except ImportError:  # bitsandbytes is not installed
    pass


def fast_forward(layer: "MixedLayer", x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor | None:
    """The layer's output by its kernel, or None where PEFT's own code has to run.

    Args:
        layer: an adapted layer.
        x: (*batch, d_in).
        args: what the layer was called with beside x.
        kwargs: likewise.

    Raises:
        UnsupportedError: an adapter asks for the kernel "fused" or "remat", which cannot run here.
    """
    names = [name for name in layer.active_adapters if name in layer.lora_A]
    kernels = {wanted_kernel(layer.kernels.get(name, "auto")) for name in names}
    if not names or kernels == {"reference"}:
        return None
    obstacle = _obstacle(layer, names, args, kwargs)
    if obstacle is None:
        return _apply(layer, x, names)
    forced = kernels - {"auto", "reference"}
    if forced and not (layer.disable_adapters or layer.merged):
        raise UnsupportedError(
            f"{layer.mixer_target}: kernel {forced.pop()!r} cannot run {obstacle}. Use kernel='auto', which falls back."
        )
    return None


def kernels_used(model: nn.Module) -> dict[str, int]:
    """How the linear layers of a model computed last: tier of `moslora.ops`, or "peft" for PEFT's code -> layers."""
    layers = [module for module in model.modules() if isinstance(module, LINEAR_CLASSES)]
    return dict(Counter(tier for layer in layers for tier in getattr(layer, "tiers", {"": "peft"}).values()))


def _apply(layer: "MixedLayer", x: Tensor, names: list[str]) -> Tensor:
    result: nn.Module | Tensor = layer.base_layer
    for name in names:
        A, M, B = _factors(layer, name)
        dropout = layer.lora_dropout[name]
        p = dropout.p if isinstance(dropout, nn.Dropout) and dropout.training else 0.0
        kernel: Kernel = layer.kernels.get(name, "auto")
        layer.tiers[name] = choose_tier(x, result, wanted_kernel(kernel))
        result = mixed_lora(x, result, A, M, B, layer.scaling[name], p, kernel=kernel)
    assert isinstance(result, Tensor)
    return result


def _factors(layer: "MixedLayer", name: str) -> tuple[Tensor, Tensor | None, Tensor]:
    """A, M and B; the butterfly's M is folded into A, which costs two additions."""
    down, B = layer.lora_A[name], layer.lora_B[name].weight
    if isinstance(down, MixedLinear):
        return (down.raw, down.mixer, B) if down.mixer is not None else (down.effective(), None, B)
    return down.weight, None, B


def _obstacle(layer: "MixedLayer", names: list[str], args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Why PEFT's code has to run; None if it does not."""
    if layer.disable_adapters or layer.merged:
        return "while adapters are merged or disabled"
    if args or any(value is not None for value in kwargs.values()):
        return f"with the arguments {', '.join(kwargs) or 'given'} (mixed batches and the like)"
    if torch.compiler.is_compiling():
        return "inside torch.compile"
    for name in names:
        if name in layer.lora_variant:
            return f"with {type(layer.lora_variant[name]).__name__}"
        if layer.lora_B[name].bias is not None:
            return "with lora_bias"
        if not isinstance(layer.lora_dropout[name], (nn.Dropout, nn.Identity)):
            return f"with the dropout {type(layer.lora_dropout[name]).__name__}"
        for module in (layer.lora_A[name], layer.lora_B[name]):
            if type(module) not in (nn.Linear, MixedLinear) or module._forward_hooks or module._forward_pre_hooks:
                return f"with the factor {type(module).__name__}, which is not a plain one"
            if not all(is_whole(parameter) for parameter in module.parameters(recurse=False)):
                return "with sharded parameters, which only a call of their own module gathers"
    return None
