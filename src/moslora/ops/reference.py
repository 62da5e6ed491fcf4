"""The equation in plain torch, out of place: works under every transform of torch."""

import torch
from torch import Tensor
from torch.nn import functional


def add_update(y: Tensor, x: Tensor, A: Tensor, M: Tensor | None, B: Tensor, scale: float, p: float) -> Tensor:
    """`y + scale * dropout(x) A^T M^T B^T`, in the dtype of y.

    Args:
        y: (*batch, d_out).
        x: (*batch, d_in).
        A: (r, d_in).
        M: (r, r), or None for the identity.
        B: (d_out, r).
        scale: alpha / r.
        p: dropout rate.
    """
    x = functional.dropout(x, p) if p else x
    total = torch.add(y, update(x, A, M, B, 1.0), alpha=scale)
    return total if total.dtype == y.dtype else total.to(y.dtype)


def update(x: Tensor, A: Tensor, M: Tensor | None, B: Tensor, scale: float) -> Tensor:
    """`scale * x A^T M^T B^T`; arguments as for `add_update`."""
    if not x.dtype == A.dtype == B.dtype == (A if M is None else M).dtype:
        if autocast_dtype(x.device) is None:
            x = x.to(torch.promote_types(x.dtype, A.dtype))
            A = A.to(x.dtype)
        M, B = None if M is None else M.to(A.dtype), B.to(A.dtype)
    hidden = functional.linear(x, A)
    if M is not None:
        hidden = functional.linear(hidden, M)
    out = functional.linear(hidden, B)
    return out if scale == 1.0 else out * scale


def autocast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of autocast where it is on, else None."""
    if not torch.amp.is_autocast_available(device.type) or not torch.is_autocast_enabled(device.type):
        return None
    return torch.get_autocast_dtype(device.type)
