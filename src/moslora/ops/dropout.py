"""Dropout that is kept as one 64-bit seed instead of a mask.

The mask is drawn again from the seed in the backward pass. The seed comes from torch's own generator, so the usual
seeding, gradient checkpointing and resuming cover it, and every layer has a mask of its own.

Drawing bits is most of the cost on a CPU, so a value gets 8 of them: it is dropped below a threshold of its row. The
threshold is one of two neighbours, drawn so that every value is dropped with the rate asked for, to within 1 / 131072.
Two values of one row are thereby correlated by less than 1e-4.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

_LEVELS = 1 << 16  # of a dropout rate: 256 thresholds, and 256 shares of rows that have the next one
_PIECE = 1 << 19  # mask values drawn at a time on a CPU
_BITS = {2: torch.int16, 4: torch.int32, 8: torch.int64}  # bytes of a floating dtype -> integers of that size


def draw_seed(device: torch.device) -> int:
    """A fresh seed from torch's generator of the device, in [0, 2**63)."""
    if device.type == "cuda":
        # A random number would have to be waited for. The generator's state says where it stands, without the GPU.
        generator = torch.cuda.default_generators[torch.cuda.current_device() if device.index is None else device.index]
        offset = generator.get_offset()
        generator.set_offset(offset + 4)
        return (generator.initial_seed() * 0x9E3779B97F4A7C15 + offset) % 2**63
    return int(torch.empty((), dtype=torch.int64, device="cpu").random_())


def dropped_levels(p: float) -> int:
    """How many of the 65536 levels are dropped: their share is p to within 1 / 131072."""
    return min(_LEVELS - 256, round(p * _LEVELS))


def keep_scale(p: float) -> float:
    """1 / (share that is kept), which keeps the expectation of a dropped-out value."""
    return _LEVELS / (_LEVELS - dropped_levels(p))


def drop(x: Tensor, p: float, seed: int) -> Tensor:
    """`x * K` for the mask K of a seed, without the factor `keep_scale`.

    Args:
        x: (*batch, d), a floating dtype. A dropped NaN or infinity becomes 0.
        p: share that is dropped, in (0, 1).
        seed: from `draw_seed`. Another kind of device draws another mask from the same seed.

    Returns:
        as x.
    """
    rows = x.reshape(-1, x.shape[-1])
    dropped = torch.empty_like(rows)
    for part, mask in draw_masks(rows, p, seed):
        dropped[part] = masked(rows[part], mask)
    return dropped.view(x.shape)


def draw_masks(x: Tensor, p: float, seed: int) -> Iterator[tuple[slice, Tensor]]:
    """The mask of a seed for x (T, d), some rows at a time.

    On a CPU the pieces stay in its cache, and their memory is used again; elsewhere there is one piece.

    Yields:
        the rows, and their mask as int16: no bit set where a value is dropped, every bit where it is kept.
    """
    T, d = x.shape
    rows = max(1, _PIECE // max(1, d) if x.device.type == "cpu" else T)
    if x.is_meta:
        yield slice(0, T), torch.empty(T, d, dtype=torch.int16, device="meta")
        return
    generator = torch.Generator(x.device).manual_seed(seed)
    low, share = divmod(dropped_levels(p), 256)
    for start in range(0, T, rows):
        part = slice(start, min(start + rows, T))
        count = part.stop - start
        levels = _random_bytes((count, d), generator)
        thresholds = _random_bytes((count, 1), generator) < share - 128
        mask = torch.empty(count, d, dtype=torch.int16, device=x.device)
        yield part, torch.lt(levels, thresholds.to(torch.int8).add_(low - 128), out=mask).sub_(1)


def _random_bytes(shape: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Uniform in [-128, 128), int8."""
    count = shape[0] * shape[1]
    draws = torch.empty(-(-count // 8), dtype=torch.int64, device=generator.device)
    return draws.random_(-(2**63), None, generator=generator).view(torch.int8)[:count].view(shape)


def masked(x: Tensor, mask: Tensor) -> Tensor:
    """`x * K` by a mask of `draw_masks`."""
    return (x.view(_BITS[x.element_size()]) & mask).view(x.dtype)
