"""The products of an adapter with x and g, by torch.

These are the only ones whose cost grows with T d. `triton_kernels.py` has the same functions with one pass over x or g
each and is held to these by the tests. Names and formulas are those of `autograd.py`; the mask K is of zeros and ones,
since its factor `keep_scale` is part of s.
"""

from torch import Tensor

from .dropout import draw_mask, drop, masked

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
    return (drop(x, p, seed) if p else x).to(A.dtype) @ A.T


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
        p, seed: as for `down_projection`; the mask is drawn once for both.
        g: (T, d_out), in the dtype of x.
        weight: (d_out, d_in), in the dtype of x.
        needs: whether to compute dA, and dx.

    Returns:
        dA (r, d_in) in the dtype of dh, and dx (T, d_in) in that of x; None where it is not needed.
    """
    A_needed, x_needed = needs
    mask = draw_mask(x.shape, p, seed, x.device) if p and any(needs) else None
    dA = dx = None
    if A_needed:
        dA = dh.T @ (x if mask is None else masked(x, mask)).to(dh.dtype)
    if x_needed:
        dx = dh @ A
        dx = (dx if mask is None else masked(dx, mask)).to(x.dtype)
        if g is not None and weight is not None:
            dx.addmm_(g, weight)
    return dA, dx
