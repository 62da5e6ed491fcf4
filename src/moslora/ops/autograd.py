"""The equation with a backward pass written by hand, so that almost nothing is kept for it.

With K the dropout mask, s the scale / (1 - p) and B~ = B M, a layer computes

    forward     h = (x * K) A^T          y = W x + bias + s h B~^T
    kept        x (an alias, or how to rebuild it), h (T, r), the seed of K, the parameters
    backward    dh = s g B~              dB~ = s g^T h
                dA = dh^T (x * K)        dB = dB~ M^T        dM = B^T dB~
                dx = g W + (dh A) * K

where T is the number of rows of x and g the gradient of y. With r >= 256 and fewer rows than outputs, the mixer is
applied to h instead of B, which is then cheaper.

W and the bias are frozen. B = 0 leaves the base layer's output as it is, to the bit.

Source: the chain rule for `B M A` of arXiv:2406.11909.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional

from . import reference
from .dropout import draw_seed, drop, keep_scale
from .rebuild import find_recipe, rebuild

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
        dx, dA, dM, dB = _gradients(ctx, g, (x_needs, *factors_need))
        if dx is not None:
            rows = g.reshape(-1, g.shape[-1])
            if torch.is_grad_enabled() or dx.dtype != ctx.weight.dtype:
                dx = dx + (rows @ ctx.weight).view(dx.shape)
            else:
                dx.view(-1, dx.shape[-1]).addmm_(rows, ctx.weight)
        return dx, None, None, dA, dM, dB, None


def _update_factors(
    ctx: Any, x: Tensor, A: Tensor, M: Tensor | None, B: Tensor, settings: Settings
) -> tuple[Tensor, Tensor, float]:
    """The update as a product, s * (T, r) (d_out, r)^T, and what the backward pass needs of it in `ctx`."""
    dtype = _compute_dtype(x, A)
    rows = x.reshape(-1, x.shape[-1])
    dropped = drop(rows, settings.p, settings.seed) if settings.p else rows
    h = dropped.to(dtype) @ A.to(dtype).T  # (T, r)
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


def _gradients(ctx: Any, g: Tensor, needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
    """Gradients of x, A, M and B, as far as they are needed."""
    x, h, A, M, B = ctx.saved_tensors
    x = rebuild(ctx.recipe) if x is None else x
    if torch.is_grad_enabled():
        return _differentiable_gradients(x, A, M, B, g, ctx.settings, needs)
    x_needs, A_needs, M_needs, B_needs = needs
    dtype, s = h.dtype, _effective_scale(ctx.settings)
    p, seed = ctx.settings.p, ctx.settings.seed
    rows = g.reshape(-1, g.shape[-1]).to(dtype)
    dA = dM = dB = dx = None
    M_ = None if M is None else M.to(dtype)
    B_ = B.to(dtype)
    scaled = h * s
    if M_ is not None and _unfolded(h, B):
        dk = (rows @ B_) * s  # (T, r), gradient of h M^T
        dh = dk @ M_
        dB = rows.T @ (scaled @ M_.T) if B_needs else None
        dM = dk.T @ h if M_needs else None
    else:
        dh = (rows @ (B_ if M_ is None else B_ @ M_)) * s
        folded = rows.T @ scaled if B_needs or M_needs else None  # (d_out, r), gradient of B M
        if B_needs:
            dB = folded if M_ is None else folded @ M_.T
        if M_needs:
            dM = B_.T @ folded
    if A_needs:
        flat = x.reshape(-1, x.shape[-1])
        dA = dh.T @ (drop(flat, p, seed) if p else flat).to(dtype)
    if x_needs:
        dx = dh @ A.to(dtype)
        dx = (drop(dx, p, seed) if p else dx).view(ctx.shape).to(x.dtype)
    return dx, *(
        None if gradient is None else gradient.to(parameter.dtype)
        for gradient, parameter in ((dA, A), (dM, M), (dB, B))
    )


def _differentiable_gradients(
    x: Tensor, A: Tensor, M: Tensor | None, B: Tensor, g: Tensor, settings: Settings, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    """The same gradients through plain torch, so that they can be differentiated again."""
    mask = drop(torch.ones_like(x), settings.p, settings.seed) if settings.p else None
    dropped = x if mask is None else x * mask
    update = reference.update(dropped, A, M, B, _effective_scale(settings))
    inputs = [tensor for tensor, needed in zip((x, A, M, B), needs, strict=True) if needed and tensor is not None]
    gradients = iter(torch.autograd.grad(update, inputs, g.to(update.dtype), create_graph=True))
    return tuple(next(gradients) if needed else None for needed in needs)


def _effective_scale(settings: Settings) -> float:
    return settings.scale * (keep_scale(settings.p) if settings.p else 1.0)


def _compute_dtype(x: Tensor, A: Tensor) -> torch.dtype:
    """Autocast's dtype where it is on; else the wider one of activation and adapter, as PEFT computes."""
    return reference.autocast_dtype(x.device) or torch.promote_types(x.dtype, A.dtype)
