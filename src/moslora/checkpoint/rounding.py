"""W + delta W in float64, and how far numbers of a smaller dtype are from it, in roundings."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .layers import Layer

BLOCK_VALUES = 2**22  # of float64 in memory at a time: 32 MiB

# A number that was rounded once is at most 1 away. The rest is for float64, which torch rounds to 16 bits by way of
# float32.
ALLOWED = 1.001


def exact_blocks(weight: Tensor, layer: Layer | None) -> Iterator[tuple[slice, Tensor]]:
    """Some rows at a time of `W + delta W`.

    Args:
        weight: W (d_out, d_in).
        layer: whose delta W is added, or None.

    Yields:
        which rows, and their values in float64.
    """
    products = layer.products() if layer is not None else []
    step = max(1, BLOCK_VALUES // max(1, weight.shape[-1])) if weight.ndim > 1 else max(1, len(weight))
    for start in range(0, len(weight), step):
        rows = slice(start, start + step)
        exact = weight[rows].double()
        for B, A in products:
            exact = exact + B[rows] @ A
        yield rows, exact


def roundings(found: Tensor, exact: Tensor) -> float:
    """Largest difference, in units of what rounding to the dtype of `found` may change: half a last place.

    Args:
        found: of a floating dtype.
        exact: float64, of the same shape.

    Returns:
        0 for equal tensors, at most 1 after one rounding, infinite where a value is missing.
    """
    kind = torch.finfo(found.dtype)
    last_place = kind.eps * 2.0 ** (torch.frexp(exact).exponent - 1).double()
    smallest = kind.smallest_normal * kind.eps
    half = torch.where(exact == 0, smallest, last_place.clamp_min(smallest)) / 2
    largest = ((found.double() - exact).abs() / half).max().item() if found.numel() else 0.0
    return math.inf if math.isnan(largest) else largest
