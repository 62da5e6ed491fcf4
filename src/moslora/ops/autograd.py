"""The equation with a backward pass written by hand, so that almost nothing is kept for it.

With K the dropout mask, s the scale / (1 - p) and B~ = B M, a layer computes

    forward     h = (x * K) A^T          y = W x + bias + s h B~^T
    kept        x (an alias, or how to rebuild it), h (T, r), the seed of K, the parameters
    backward    dh = s g B~              dB~ = s g^T h
                dA = dh^T (x * K)        dB = dB~ M^T        dM = B^T dB~
                dx = g W + (dh A) * K

where T is the number of rows of x and g the gradient of y. With r >= 256 and fewer rows than outputs, the mixer is
applied to h instead of B, which is then cheaper.

The products with x or g come from `eager.py` or, on a GPU and if asked for, from `triton_kernels.py`. Each draws masks
of its own from a seed, so `ctx.products` remembers which one the forward pass used.

W and the bias are frozen. B = 0 leaves the base layer's output as it is, to the bit.

Source: the chain rule for `B M A` of arXiv:2406.11909.
"""

import functools
import os
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from . import eager, reference
from .dropout import draw_seed, keep_scale
from .rebuild import find_recipe, rebuild

TRITON_VARIABLE = "MOSLORA_TRITON"  # environment variable; 1 turns the Triton kernels on

_UNFOLDED_RANK = 256


class Settings(NamedTuple):
    """What is not a tensor."""

    scale: float
    p: float
    seed: int  # of the dropout mask; unused when p = 0
    rebuild: bool


def adapter_only(
    y: Tensor, x: Tensor, A: Tensor, M: Tensor | None, B: Tensor, scale: float, p: float, rebuild: bool
) -> Tensor:
    """The output `y` of any base layer plus the update.

    Args:
        y: (*batch, d_out).
        x: (*batch, d_in).
        A: (r, d_in).
        M: (r, r), or None for the identity.
        B: (d_out, r).
        scale: alpha / r.
        p: dropout rate.
        rebuild: rebuild x in the backward pass where that is possible.

    Returns:
        (*batch, d_out), in the dtype of y.
    """
    seed = draw_seed(x.device) if p else 0
    return _AdapterOnly.apply(y, x, A, M, B, Settings(scale, p, seed, rebuild))


def whole_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    A: Tensor,
    M: Tensor | None,
    B: Tensor,
    scale: float,
    p: float,
    rebuild: bool,
) -> Tensor:
    """The frozen linear layer and its update at once.

    Args:
        x: (*batch, d_in).
        weight: (d_out, d_in), frozen, in the dtype of x.
        bias: (d_out,) or None, frozen.
        A, M, B, scale, p, rebuild: as for `adapter_only`.

    Returns:
        (*batch, d_out).
    """
    seed = draw_seed(x.device) if p else 0
    return _WholeLinear.apply(x, weight, bias, A, M, B, Settings(scale, p, seed, rebuild))


class _AdapterOnly(Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor, x: Tensor, A: Tensor, M: Tensor | None, B: Tensor, settings: Settings) -> Tensor:
        hidden, B_folded, s = _update_factors(ctx, x, A, M, B, settings)
        rows = y.reshape(-1, y.shape[-1])
        if y.dtype == hidden.dtype:
            return torch.addmm(rows, hidden, B_folded.T, alpha=s).view(y.shape)
        return torch.add(rows, hidden @ B_folded.T, alpha=s).to(y.dtype).view(y.shape)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        return (g, *_gradients(ctx, g, ctx.needs_input_grad[1:5]), None)


class _WholeLinear(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        A: Tensor,
        M: Tensor | None,
        B: Tensor,
        settings: Settings,
    ) -> Tensor:
        ctx.weight = weight
        hidden, B_folded, s = _update_factors(ctx, x, A, M, B, settings)
        y = functional.linear(x, weight, bias)
        rows = y.view(-1, y.shape[-1])
        if y.dtype == hidden.dtype:
            rows.addmm_(hidden, B_folded.T, alpha=s)
        else:
            rows.add_(hidden @ B_folded.T, alpha=s)
        return y

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor | None, ...]:
        x_needs, _, _, *factors_need = ctx.needs_input_grad[:6]
        dx, *dfactors = _gradients(ctx, g, (x_needs, *factors_need), ctx.weight)
        return dx, None, None, *dfactors, None


def _update_factors(
    ctx: Any, x: Tensor, A: Tensor, M: Tensor | None, B: Tensor, settings: Settings
) -> tuple[Tensor, Tensor, float]:
    """The update as a product, s * (T, r) (d_out, r)^T, and what the backward pass needs of it in `ctx`."""
    dtype = _compute_dtype(x, A)
    rows = x.reshape(-1, x.shape[-1])
    ctx.products = _products(x, dtype, A.shape[0])
    h = ctx.products.down_projection(rows, A.to(dtype), settings.p, settings.seed)  # (T, r)
    ctx.recipe = find_recipe(x) if settings.rebuild else None
    ctx.settings, ctx.shape = settings, x.shape
    ctx.save_for_backward(None if ctx.recipe else x, h, A, M, B)
    return *_mixed(h, M, B, dtype), _effective_scale(settings)


def _mixed(h: Tensor, M: Tensor | None, B: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The two factors of the update, (T, r) and (d_out, r), with the mixer in the one where it costs less."""
    if M is None:
        return h, B.to(dtype)
    if _unfolded(h, B):
        return h @ M.to(dtype).T, B.to(dtype)
    return h, B.to(dtype) @ M.to(dtype)


def _unfolded(h: Tensor, B: Tensor) -> bool:
    return h.shape[1] >= _UNFOLDED_RANK and h.shape[0] < B.shape[0]


def _products(x: Tensor, dtype: torch.dtype, r: int) -> ModuleType:
    """The Triton kernels where they are asked for and run, else torch."""
    if os.environ.get(TRITON_VARIABLE) != "1" or not (x.is_cuda or os.environ.get("TRITON_INTERPRET") == "1"):
        return eager
    kernels = _triton_kernels()
    return kernels if kernels is not None and kernels.supports(x, dtype, r) else eager


@functools.cache
def _triton_kernels() -> ModuleType | None:
    try:
        from . import triton_kernels
    except ImportError:  # Triton is not installed
        return None
    return triton_kernels


def _gradients(ctx: Any, g: Tensor, needs: tuple[bool, ...], weight: Tensor | None = None) -> tuple[Tensor | None, ...]:
    """Gradients of x, A, M and B, as far as they are needed; with the weight, that of x is the base's too."""
    x, h, A, M, B = ctx.saved_tensors
    x = rebuild(ctx.recipe) if x is None else x
    rows = g.reshape(-1, g.shape[-1])
    if torch.is_grad_enabled():
        dx, *dfactors = _differentiable_gradients(ctx, x, A, M, B, g, needs)
        if dx is not None and weight is not None:
            dx = dx + (rows @ weight).view(dx.shape)
        return dx, *dfactors
    x_needs, A_needs, *up_needs = needs
    p, seed = ctx.settings.p, ctx.settings.seed
    dh, dM, dB = _up_gradients(ctx, rows, h, M, B, *up_needs)
    flat = x.reshape(-1, x.shape[-1])
    dA, dx = ctx.products.down_gradients(dh, flat, A.to(dh.dtype), p, seed, rows, weight, (A_needs, x_needs))
    dx = None if dx is None else dx.view(ctx.shape)
    return dx, *(
        None if gradient is None else gradient.to(parameter.dtype)
        for gradient, parameter in ((dA, A), (dM, M), (dB, B))
    )


def _up_gradients(
    ctx: Any, g: Tensor, h: Tensor, M: Tensor | None, B: Tensor, M_needs: bool, B_needs: bool
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """Gradients of h, M and B."""
    hidden, B_folded = _mixed(h, M, B, h.dtype)
    s = _effective_scale(ctx.settings)
    dhidden, dB_folded = ctx.products.up_gradients(g, B_folded, hidden, s, M_needs or B_needs)
    if M is None:
        return dhidden, None, dB_folded
    M_ = M.to(h.dtype)
    if _unfolded(h, B):
        return dhidden @ M_, dhidden.T @ h if M_needs else None, dB_folded if B_needs else None
    dM = B.to(h.dtype).T @ dB_folded if M_needs else None
    return dhidden, dM, dB_folded @ M_.T if B_needs else None


def _differentiable_gradients(
    ctx: Any, x: Tensor, A: Tensor, M: Tensor | None, B: Tensor, g: Tensor, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The same gradients through plain torch, so that they can be differentiated again."""
    settings = ctx.settings
    dropped = x * ctx.products.drop(torch.ones_like(x), settings.p, settings.seed) if settings.p else x
    update = reference.update(dropped, A, M, B, _effective_scale(settings))
    inputs = [tensor for tensor, needed in zip((x, A, M, B), needs, strict=True) if needed and tensor is not None]
    gradients = iter(torch.autograd.grad(update, inputs, g.to(update.dtype), create_graph=True))
    return tuple(next(gradients) if needed else None for needed in needs)


def _effective_scale(settings: Settings) -> float:
    return settings.scale * (keep_scale(settings.p) if settings.p else 1.0)


def _compute_dtype(x: Tensor, A: Tensor) -> torch.dtype:
    """Autocast's dtype where it is on; else the wider one of activation and adapter, as PEFT computes."""
    return reference.autocast_dtype(x.device) or torch.promote_types(x.dtype, A.dtype)
