"""The equation, fast: one function, `mixed_lora`, that picks how it computes.

| tier | what it is | runs |
| :-- | :-- | :-- |
| reference | plain torch, out of place | everywhere, also under torch.compile and torch.func |
| adapter | a backward pass of its own for the adapter, over any base layer | fused, remat |
| linear | the same for base layer and adapter at once | fused, remat, over a plain frozen nn.Linear |

Kernel "remat" also rebuilds x in the backward pass, where the graph allows it (`rebuild.py`), instead of keeping it.
"""

import os
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from ..errors import ConfigError, UnsupportedError
from . import autograd, reference

Kernel = Literal["auto", "reference", "fused", "remat"]
Tier = Literal["reference", "adapter", "linear"]

KERNELS: tuple[Kernel, ...] = get_args(Kernel)
VARIABLE = "MOSLORA_KERNEL"  # environment variable that wins over the argument

_FEW_ROWS = 64  # below this the cost is that of calling, and plain torch calls less


def mixed_lora(
    x: Tensor,
    base: nn.Module | Tensor,
    A: Tensor,
    M: Tensor | None,
    B: Tensor,
    scale: float,
    dropout: float = 0.0,
    *,
    kernel: Kernel = "auto",
) -> Tensor:
    """A frozen layer with a LoRA, MoSLoRA or two-subspaces update: `base(x) + scale * dropout(x) A^T M^T B^T`.

    Args:
        x: (*batch, d_in).
        base: the frozen layer, or its output (*batch, d_out).
        A: (r, d_in).
        M: (r, r), or None for the identity.
        B: (d_out, r).
        scale: alpha / r.
        dropout: rate, in [0, 1).
        kernel: "reference" is plain torch, "fused" keeps no mask and no copy of x, "remat" does not even keep x where
            it can be rebuilt, "auto" takes the one that suits. The environment variable MOSLORA_KERNEL wins.

    Returns:
        (*batch, d_out), in the dtype of the base's output.

    Raises:
        UnsupportedError: the kernel was asked for by name and cannot run here.
        ConfigError: no such kernel.

    Source: arXiv:2406.11909.
    """
    kernel = wanted_kernel(kernel)
    return compute(choose_tier(x, base, kernel), x, base, A, M, B, scale, dropout, rebuild=kernel == "remat")


def compute(
    tier: Tier,
    x: Tensor,
    base: nn.Module | Tensor,
    A: Tensor,
    M: Tensor | None,
    B: Tensor,
    scale: float,
    dropout: float,
    *,
    rebuild: bool,
) -> Tensor:
    """`mixed_lora` by a tier that `choose_tier` has found to run; `rebuild` is what sets "remat" apart."""
    if tier == "linear":
        assert isinstance(base, nn.Linear)
        return autograd.whole_linear(x, base.weight, base.bias, A, M, B, scale, dropout, rebuild)
    y = base if isinstance(base, Tensor) else base(x)
    if tier == "reference":
        return reference.add_update(y, x, A, M, B, scale, dropout)
    return autograd.adapter_only(y, x, A, M, B, scale, dropout, rebuild)


def wanted_kernel(kernel: Kernel) -> Kernel:
    """The kernel that the environment variable or else the argument asks for.

    Raises:
        ConfigError: no such kernel.
    """
    return check_kernel(os.environ.get(VARIABLE, kernel))


def check_kernel(kernel: str) -> Kernel:
    """The kernel, if there is one of that name; raises ConfigError."""
    if kernel not in KERNELS:
        raise ConfigError(f"There is no kernel {kernel!r}: choose one of {', '.join(KERNELS)}.")
    return kernel


def choose_tier(x: Tensor, base: nn.Module | Tensor, kernel: Kernel) -> Tier:
    """How `mixed_lora` computes with these arguments.

    Raises:
        UnsupportedError: the kernel is "fused" or "remat" and cannot run here.
    """
    if kernel == "reference":
        return "reference"
    obstacle = _obstacle(x)
    if obstacle and kernel != "auto":
        raise UnsupportedError(f"Kernel {kernel!r} cannot run {obstacle}: use kernel='auto' or kernel='reference'.")
    if obstacle or (kernel == "auto" and x.numel() < _FEW_ROWS * x.shape[-1]):
        return "reference"
    return "linear" if _is_plain_linear(base, x) else "adapter"


def is_whole(parameter: Tensor) -> bool:
    """Whether a parameter can be read as it is: not a DTensor, a quantised one, or one that ZeRO-3 has taken apart."""
    return type(parameter) is nn.Parameter and "ds_id" not in parameter.__dict__


def _obstacle(x: Tensor) -> str | None:
    if torch.compiler.is_compiling():
        return "inside torch.compile, which cannot trace its seed"
    if torch._C._are_functorch_transforms_active():
        return "inside a transform of torch.func"
    return None


def _is_plain_linear(base: nn.Module | Tensor, x: Tensor) -> bool:
    if type(base) is not nn.Linear or base._forward_hooks or base._forward_pre_hooks:
        return False
    dtype = reference.autocast_dtype(x.device) or x.dtype
    parameters = (base.weight,) if base.bias is None else (base.weight, base.bias)
    plain = all(is_whole(parameter) and not parameter.requires_grad for parameter in parameters)
    return plain and base.weight.dtype == x.dtype == dtype
