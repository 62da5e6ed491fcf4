"""The products of an adapter with x and g, by torch.

These are the only ones whose cost grows with T d. `triton_kernels.py` has the same functions with one pass over x or g
each and is held to these by the tests. Names and formulas are those of `autograd.py`; the mask K is of zeros and ones,
since its factor `keep_scale` is part of s.
"""

import torch
from torch import Tensor

from .dropout import drop

__all__ = ["A_gradient", "down_projection", "drop", "up_gradients", "x_gradient"]


def down_projection(x: Tensor, A: Tensor, p: float, seed: int) -> Tensor:
    """`h = (x * K) A^T`.

    Args:
        x: (T, d_in).
        A: (r, d_in), in the dtype to compute in.
        p: dropout rate; 0 means that K is 1 everywhere.
        seed: of K.

    Returns:
        (T, r), in the dtype of A.
    """
    return _dropped(x, p, seed).to(A.dtype) @ A.T


def up_gradients(g: Tensor, B: Tensor, h: Tensor, s: float, dB_needed: bool) -> tuple[Tensor, Tensor | None]:
    """Gradients of both factors of `s h B^T`: `dh = s g B` and `dB = s g^T h`.

    Args:
        g: (T, d_out).
        B: (d_out, r), in the dtype to compute in.
        h: (T, r), in the same dtype.
        s: scale of the update.
        dB_needed: whether to compute dB.

    Returns:
        dh (T, r) and dB (d_out, r) or None, in the dtype of B.
    """
    g = g.to(B.dtype)
    return (g @ B) * s, g.T @ (h * s) if dB_needed else None


def A_gradient(dh: Tensor, x: Tensor, p: float, seed: int) -> Tensor:
    """`dA = dh^T (x * K)`.

    Args:
        dh: (T, r), in the dtype to compute in.
        x: (T, d_in).
        p, seed: as for `down_projection`.

    Returns:
        (r, d_in), in the dtype of dh.
    """
    return dh.T @ _dropped(x, p, seed).to(dh.dtype)


def x_gradient(
    dh: Tensor,
    A: Tensor,
    p: float,
    seed: int,
    dtype: torch.dtype,
    g: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """`dx = (dh A) * K`, plus `g W` where the base layer's weight is given.

    Args:
        dh: (T, r), in the dtype to compute in.
        A: (r, d_in), in the same dtype.
        p, seed: as for `down_projection`.
        dtype: of the result.
        g: (T, d_out), in `dtype`.
        weight: (d_out, d_in), in `dtype`.

    Returns:
        (T, d_in).
    """
    dx = _dropped(dh @ A, p, seed).to(dtype)
    if g is None or weight is None:
        return dx
    return dx.addmm_(g, weight)


def _dropped(x: Tensor, p: float, seed: int) -> Tensor:
    return drop(x, p, seed) if p else x
