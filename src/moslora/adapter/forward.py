"""The forward pass of an adapted linear layer through `moslora.ops`, where it means the same as PEFT's own.

PEFT's code runs wherever it does more than `base(x) + sum of updates`: merged or disabled adapters, mixed batches,
variants such as DoRA, a bias in B, factors that something has hooked. Layers that are not linear never come here.
"""

from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from peft.tuners.lora.layer import Linear, LoraLayer
from torch import Tensor, nn

from ..errors import UnsupportedError
from ..ops import Kernel, choose_tier, compute, is_whole, wanted_kernel
from .modules import MixedLinear

if TYPE_CHECKING:
    from .layers import MixedLayer

_PLAIN = (nn.Linear, MixedLinear)
LINEAR_CLASSES: tuple[type[LoraLayer], ...] = (Linear,)
try:
    from peft.tuners.lora.bnb import Linear4bit, Linear8bitLt

    LINEAR_CLASSES += (Linear8bitLt, Linear4bit)
except ImportError:  # bitsandbytes is not installed
    pass


class _Adapter(NamedTuple):
    """One active adapter of a layer, as `moslora.ops` takes it."""

    name: str
    kernel: Kernel
    A: Tensor
    M: Tensor | None
    B: Tensor
    scale: float
    p: float


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
    if layer.disable_adapters or layer.merged:
        return None
    factors = layer._modules["lora_A"]  # attributes of modules are several times slower, which tiny inputs feel
    names = [name for name in layer.active_adapters if name in factors]
    kernels = [wanted_kernel(layer.kernels.get(name, "auto")) for name in names]
    if not names or all(kernel == "reference" for kernel in kernels):
        return None
    adapters = _obstacle_to_call(args, kwargs) or _read(layer, names, kernels)
    if not isinstance(adapters, str):
        return _apply(layer, x, adapters)
    forced = [kernel for kernel in kernels if kernel in ("fused", "remat")]
    if forced:
        raise UnsupportedError(
            f"{layer.mixer_target}: kernel {forced[0]!r} cannot run {adapters}. Use kernel='auto', which falls back."
        )
    return None


def kernels_used(model: nn.Module) -> dict[str, int]:
    """How the linear layers of a model computed last: tier of `moslora.ops`, or "peft" for PEFT's code -> layers."""
    layers = [module for module in model.modules() if isinstance(module, LINEAR_CLASSES)]
    return dict(Counter(tier for layer in layers for tier in getattr(layer, "tiers", {"": "peft"}).values()))


def _apply(layer: "MixedLayer", x: Tensor, adapters: list[_Adapter]) -> Tensor:
    result: nn.Module | Tensor = layer._modules["base_layer"]
    for name, kernel, A, M, B, scale, p in adapters:
        tier = choose_tier(x, result, kernel)
        layer.tiers[name] = tier
        result = compute(tier, x, result, A, M, B, scale, p, rebuild=kernel == "remat")
    assert isinstance(result, Tensor)
    return result


def _obstacle_to_call(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
    """Why a call with these arguments, or in this place, is PEFT's; None if it is not."""
    if args or (kwargs and any(value is not None for value in kwargs.values())):
        return f"with the arguments {', '.join(kwargs) or 'given'} (mixed batches and the like)"
    if torch.compiler.is_compiling():
        return "inside torch.compile"
    return None


def _read(layer: "MixedLayer", names: list[str], kernels: list[Kernel]) -> "list[_Adapter] | str":
    """The adapters of a layer, or why PEFT's code has to run."""
    adapters = []
    modules = layer._modules
    downs, ups, dropouts = modules["lora_A"], modules["lora_B"], modules["lora_dropout"]
    for name, kernel in zip(names, kernels, strict=True):
        if name in layer.lora_variant:
            return f"with {type(layer.lora_variant[name]).__name__}"
        down, up, dropout = downs[name], ups[name], dropouts[name]
        obstacle = _obstacle_in_factor(down) or _obstacle_in_factor(up)
        if obstacle:
            return obstacle
        if up._parameters["bias"] is not None:
            return "with lora_bias"
        if type(dropout) not in (nn.Dropout, nn.Identity):
            return f"with the dropout {type(dropout).__name__}"
        p = dropout.p if type(dropout) is nn.Dropout and dropout.training else 0.0
        B = up._parameters["weight"]
        adapters.append(_Adapter(name, kernel, *_down_factors(down), B, layer.scaling[name], p))
    return adapters


def _obstacle_in_factor(module: nn.Module) -> str | None:
    """Why a factor has to be called, instead of its parameters being read; None if it need not."""
    if type(module) not in _PLAIN:
        return f"with the factor {type(module).__name__}, which is not a plain one"
    for parameter in module._parameters.values():
        if parameter is not None and not is_whole(parameter):
            return "with sharded parameters, which only a call of their own module gathers"
    if module._forward_hooks or module._forward_pre_hooks:
        return "with a hook on a factor, which only a call of that factor runs"
    return None


def _down_factors(down: Any) -> tuple[Any, Tensor | None]:
    """A and M; the butterfly's M is folded into A, which costs two additions."""
    if type(down) is not MixedLinear:
        return down._parameters["weight"], None
    down.refuse_unset_mixer()
    raw: Any = down._parameters["raw"]
    if down.mixer_kind == "frozen":
        frozen: Any = down._buffers["mixer"]
        return raw, frozen.to(raw.dtype)  # PEFT casts parameters only
    mixer = down._parameters["mixer"]
    return (down.effective(), None) if mixer is None else (raw, mixer)
