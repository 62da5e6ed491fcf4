"""The products of an adapter with x and g, by torch.

These are the only ones whose cost grows with T d. `triton_kernels.py` has the same functions with one pass over x or g
each and is held to these by the tests. Names and formulas are those of `autograd.py`; the mask K is of zeros and ones,
since its factor `keep_scale` is part of s.
"""

import torch
from torch import Tensor

from .dropout import draw_masks, drop, masked

__all__ = ["down_gradients", "down_projection", "drop", "up_gradients"]


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
    if not p:
        return x.to(A.dtype) @ A.T
    h = torch.empty(len(x), len(A), dtype=A.dtype, device=x.device)
    for part, mask in draw_masks(x, p, seed):
        h[part] = masked(x[part], mask).to(A.dtype) @ A.T
    return h


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


def down_gradients(
    dh: Tensor,
    x: Tensor,
    A: Tensor,
    p: float,
    seed: int,
    g: Tensor | None,
    weight: Tensor | None,
    needs: tuple[bool, bool],
) -> tuple[Tensor | None, Tensor | None]:
    """`dA = dh^T (x * K)` and `dx = (dh A) * K`, plus `g W` where the base layer's weight is given.

    Args:
        dh: (T, r), in the dtype to compute in.
        x: (T, d_in).
        A: (r, d_in), in the dtype of dh.
        p, seed: as for `down_projection`; each piece of the mask is drawn once for both.
        g: (T, d_out), in the dtype of x.
        weight: (d_out, d_in), in the dtype of x.
        needs: whether to compute dA, and dx.

    Returns:
        dA (r, d_in) in the dtype of dh, and dx (T, d_in) in that of x; None where it is not needed.
    """
    A_needed, x_needed = needs
    if not p:
        dA = dh.T @ x.to(dh.dtype) if A_needed else None
        dx = (dh @ A).to(x.dtype) if x_needed else None
    else:
        dA, dx = _dropped_gradients(dh, x, A, p, seed, needs)
    if dx is not None and g is not None and weight is not None:
        dx.addmm_(g, weight)
    return dA, dx


def _dropped_gradients(
    dh: Tensor, x: Tensor, A: Tensor, p: float, seed: int, needs: tuple[bool, bool]
) -> tuple[Tensor | None, Tensor | None]:
    A_needed, x_needed = needs
    # The parts of dA are summed in float32 at least, since each was rounded to the dtype of dh.
    total = torch.promote_types(dh.dtype, torch.float32)
    dA = torch.zeros(A.shape, dtype=total, device=x.device) if A_needed else None
    dx = torch.empty(x.shape, dtype=x.dtype, device=x.device) if x_needed else None
    for part, mask in draw_masks(x, p, seed) if any(needs) else ():
        if dA is not None:
            dA += dh[part].T @ masked(x[part], mask).to(dh.dtype)
        if dx is not None:
            dx[part] = masked(dh[part] @ A, mask)
    return None if dA is None else dA.to(dh.dtype), dx
