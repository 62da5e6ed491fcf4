# mypy: disable-error-code="no-untyped-def,untyped-decorator"
"""The functions of `eager.py` as Triton kernels: no mask and no masked copy of x is ever in memory.

A kernel draws the mask K where it needs it, by Philox-4x32-10 with the seed as its key and the element's row and column
as its counter; 128 bits serve eight neighbours of a row. Another kind of device or `dropout.drop` draws another mask
from the same seed, so whoever drops with these kernels must go backward with them.

Sums over many blocks are cut into parts that write float32 of their own, which torch then adds in a fixed order: equal
inputs give equal bits. All products accumulate in float32, and those of float32 never use TF32.
"""

import functools
import os
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor, nn

from . import eager
from .dropout import dropped_levels

# One block holds all of the rank. Compiled for rank 128 in float32, it would spill kilobytes of registers.
MAX_RANK = {torch.bfloat16: 128, torch.float16: 128, torch.float32: 64}

_ONE_PASS_RANK = 32  # above this the partial sums of dB weigh more than reading g twice
_PROGRAMS = 512  # that fill a large GPU
_ROWS = 64
_LINE_BYTES = 128  # of a row of x, in one block
_INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"  # as Triton read it at its import
_EXACT_DOT = tl.constexpr(_INTERPRETED)  # the interpreter multiplies the bits of bfloat16 as integers


def supports(x: Tensor, dtype: torch.dtype, r: int) -> bool:
    """Whether the kernels take this input.

    Args:
        x: (*batch, d_in).
        dtype: to compute in.
        r: rank.
    """
    return (
        type(x) in (Tensor, nn.Parameter)
        and x.dtype in MAX_RANK
        and r <= MAX_RANK.get(dtype, 0)
        and 0 < x.numel() < 2**31 * x.shape[-1]
        and (_INTERPRETED or _has_tensor_cores(x.device))
    )


def drop(x: Tensor, p: float, seed: int) -> Tensor:
    """`x * K`, to look at the mask or to differentiate twice; arguments as for `dropout.drop`."""
    rows = x.reshape(-1, x.shape[-1])
    T, d = rows.shape
    out = torch.empty(T, d, dtype=x.dtype, device=x.device)
    columns = _columns(x.dtype)
    arguments = (rows, out, seed, T, d, *rows.stride(), dropped_levels(p))
    _launch(_drop_kernel, (triton.cdiv(T, _ROWS), triton.cdiv(d, columns)), arguments, BLOCK_D=columns)
    return out.view(x.shape)


def down_projection(x: Tensor, A: Tensor, p: float, seed: int) -> Tensor:
    """As `eager.down_projection`, in one pass over x."""
    (T, d), r = x.shape, A.shape[0]
    columns = _columns(A.dtype)
    row_blocks, column_blocks = triton.cdiv(T, _ROWS), triton.cdiv(d, columns)
    parts = _parts(row_blocks, column_blocks)
    h = _partial_sums(parts, (T, r), A)
    columns_per_part = triton.cdiv(column_blocks, parts) * columns
    arguments = (x, A.contiguous(), h, seed, T, d, r, *x.stride(), columns_per_part, dropped_levels(p))
    _launch(_down_kernel, (row_blocks, parts), arguments, BLOCK_D=columns, BLOCK_R=_padded(r), num_warps=8)
    return _added(h, A.dtype)


def up_gradients(g: Tensor, B: Tensor, h: Tensor, s: float, dB_needed: bool) -> tuple[Tensor, Tensor | None]:
    """As `eager.up_gradients`, in one pass over g where that saves any reading."""
    if not dB_needed or B.shape[1] > _ONE_PASS_RANK:
        return eager.up_gradients(g, B, h, s, dB_needed)
    return one_pass_up_gradients(g, B, h, s)


def one_pass_up_gradients(g: Tensor, B: Tensor, h: Tensor, s: float) -> tuple[Tensor, Tensor]:
    """As `eager.up_gradients`, in one pass over g whatever the rank."""
    (T, d), r = g.shape, B.shape[1]
    rows, columns = _one_pass_rows(B.dtype), _columns(B.dtype)
    row_blocks, column_blocks = triton.cdiv(T, rows), triton.cdiv(d, columns)
    parts = _parts(row_blocks, column_blocks)
    dh, dB = _partial_sums(parts, (T, r), B), _partial_sums(row_blocks, (d, r), B)
    columns_per_part = triton.cdiv(column_blocks, parts) * columns
    arguments = (g, B.contiguous(), h.contiguous(), dh, dB, s, T, d, r, *g.stride(), columns_per_part)
    options = {"BLOCK_D": columns, "BLOCK_R": _padded(r), "num_warps": 8, "num_stages": 2}
    _launch(_up_kernel, (row_blocks, parts), arguments, BLOCK_T=rows, **options)
    return _added(dh, B.dtype), _added(dB, B.dtype)


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
    """As `eager.down_gradients`; each of the two draws the mask on its way."""
    A_needed, x_needed = needs
    dA = A_gradient(dh, x, p, seed) if A_needed else None
    return dA, x_gradient(dh, A, p, seed, x.dtype, g, weight) if x_needed else None


def A_gradient(dh: Tensor, x: Tensor, p: float, seed: int) -> Tensor:
    """`dA = dh^T (x * K)`, in one pass over x."""
    (T, d), r = x.shape, dh.shape[1]
    columns = _columns(dh.dtype)
    row_blocks, column_blocks = triton.cdiv(T, _ROWS), triton.cdiv(d, columns)
    parts = _parts(column_blocks, row_blocks)
    dA = _partial_sums(parts, (r, d), dh)
    rows_per_part = triton.cdiv(row_blocks, parts) * _ROWS
    arguments = (dh.contiguous(), x, dA, seed, T, d, r, *x.stride(), rows_per_part, dropped_levels(p))
    _launch(_A_gradient_kernel, (column_blocks, parts), arguments, BLOCK_D=columns, BLOCK_R=_padded(r), num_warps=8)
    return _added(dA, dh.dtype)


def x_gradient(
    dh: Tensor,
    A: Tensor,
    p: float,
    seed: int,
    dtype: torch.dtype,
    g: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """`dx = (dh A) * K` in `dtype`, plus `g W`: torch makes that, and the kernel adds to it in place."""
    (T, r), d = dh.shape, A.shape[1]
    if g is None or weight is None:
        dx, has_base = torch.empty(T, d, dtype=dtype, device=dh.device), False
    else:
        dx, has_base = g @ weight, True
    columns = _columns(A.dtype)
    arguments = (dh.contiguous(), A.contiguous(), dx, seed, T, d, r, has_base, dropped_levels(p))
    grid = (triton.cdiv(T, _ROWS), triton.cdiv(d, columns))
    _launch(_x_gradient_kernel, grid, arguments, BLOCK_D=columns, BLOCK_R=_padded(r))
    return dx.to(dtype)


def _launch(
    kernel: Any, grid: tuple[int, int], arguments: tuple[Any, ...], BLOCK_T: int = _ROWS, **options: int
) -> None:
    with torch.cuda.device_of(arguments[0]):
        kernel[grid](*arguments, BLOCK_T=BLOCK_T, **options)


@functools.cache
def _has_tensor_cores(device: torch.device) -> bool:
    """Of the generation (Ampere) that bfloat16 needs."""
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


def _columns(dtype: torch.dtype) -> int:
    return _LINE_BYTES // dtype.itemsize


def _one_pass_rows(dtype: torch.dtype) -> int:
    """The taller a block of g, the fewer partial sums of dB; one of 32 KB leaves room for another."""
    return 512 // dtype.itemsize


def _padded(r: int) -> int:
    """All of the rank is in one block, and a matrix unit wants that to be 16 wide at least."""
    return max(16, triton.next_power_of_2(r))


def _parts(programs: int, blocks: int) -> int:
    """Into how many parts to cut a sum over some blocks, so that all of its programs fill the GPU."""
    return max(1, min(blocks, _PROGRAMS // programs))


def _partial_sums(parts: int, shape: tuple[int, int], like: Tensor) -> Tensor:
    """(parts, *shape), not yet written; of the final dtype where nothing is left to add."""
    return torch.empty(parts, *shape, dtype=like.dtype if parts == 1 else torch.float32, device=like.device)


def _added(partial_sums: Tensor, dtype: torch.dtype) -> Tensor:
    return partial_sums[0] if len(partial_sums) == 1 else partial_sums.sum(0).to(dtype)


@triton.jit
def _kept(seed, rows, first_column, DROPPED: tl.constexpr, BLOCK_T: tl.constexpr, BLOCK_D: tl.constexpr):
    """(BLOCK_T, BLOCK_D), true where K is 1; `first_column` is a multiple of 8."""
    zeros = tl.zeros((BLOCK_T, BLOCK_D // 8), tl.uint32)
    eights = first_column // 8 + tl.arange(0, BLOCK_D // 8)
    a, b, c, d = tl.philox(
        seed, zeros + eights.to(tl.uint32)[None, :], zeros + rows.to(tl.uint32)[:, None], zeros, zeros
    )
    draws = tl.join(tl.join(a, b), tl.join(c, d))
    levels = tl.join(draws & 0xFFFF, draws >> 16)  # (BLOCK_T, BLOCK_D / 8, 2, 2, 2)
    return tl.reshape(levels, (BLOCK_T, BLOCK_D)) >= DROPPED


@triton.jit
def _dropped_tile(
    x,
    seed,
    rows,
    first_column,
    T,
    d,
    row_stride,
    column_stride,
    DROPPED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """(BLOCK_T, BLOCK_D) of x * K, zero outside of x."""
    columns = first_column + tl.arange(0, BLOCK_D)
    inside = (rows < T)[:, None] & (columns < d)[None, :]
    offsets = rows[:, None] * row_stride + columns.to(tl.int64)[None, :] * column_stride
    tile = tl.load(x + offsets, mask=inside, other=0.0)
    if DROPPED > 0:
        tile = tl.where(_kept(seed, rows, first_column, DROPPED, BLOCK_T, BLOCK_D), tile, 0.0)
    return tile


@triton.jit
def _dot(left, right):
    """left @ right, accumulated in float32."""
    if _EXACT_DOT:
        left, right = left.to(tl.float32), right.to(tl.float32)
    return tl.dot(left, right, input_precision="ieee")


@triton.jit
def _rows_of_block(block, BLOCK_T: tl.constexpr):
    """64-bit, since a row times its stride can be above 2^31."""
    return block.to(tl.int64) * BLOCK_T + tl.arange(0, BLOCK_T)


@triton.jit(do_not_specialize=["seed"])
def _drop_kernel(
    x,
    out,
    seed,
    T,
    d,
    row_stride,
    column_stride,
    DROPPED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    rows = _rows_of_block(tl.program_id(0), BLOCK_T)
    first_column = tl.program_id(1) * BLOCK_D
    tile = _dropped_tile(x, seed, rows, first_column, T, d, row_stride, column_stride, DROPPED, BLOCK_T, BLOCK_D)
    columns = first_column + tl.arange(0, BLOCK_D)
    inside = (rows < T)[:, None] & (columns < d)[None, :]
    tl.store(out + rows[:, None] * d + columns[None, :], tile, mask=inside)


@triton.jit(do_not_specialize=["seed"])
def _down_kernel(
    x,
    A,
    h,
    seed,
    T,
    d,
    r,
    row_stride,
    column_stride,
    columns_per_part,
    DROPPED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """h[part] = (x * K) A^T over the columns of one part."""
    rows = _rows_of_block(tl.program_id(0), BLOCK_T)
    part = tl.program_id(1)
    ranks = tl.arange(0, BLOCK_R)
    total = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
    for start in range(part * columns_per_part, tl.minimum(d, (part + 1) * columns_per_part), BLOCK_D):
        tile = _dropped_tile(x, seed, rows, start, T, d, row_stride, column_stride, DROPPED, BLOCK_T, BLOCK_D)
        columns = start + tl.arange(0, BLOCK_D)
        A_inside = (columns < d)[:, None] & (ranks < r)[None, :]
        A_tile = tl.load(A + ranks[None, :] * d + columns[:, None], mask=A_inside, other=0.0)  # transposed
        total += _dot(tile.to(A_tile.dtype), A_tile)
    offsets = (part.to(tl.int64) * T + rows)[:, None] * r + ranks[None, :]
    tl.store(h + offsets, total.to(h.dtype.element_ty), mask=(rows < T)[:, None] & (ranks < r)[None, :])


@triton.jit
def _up_kernel(
    g,
    B,
    h,
    dh,
    dB,
    s,
    T,
    d,
    r,
    row_stride,
    column_stride,
    columns_per_part,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """dh[part] = s g B over the columns of one part; dB[row block] = s g^T h over the rows of one block."""
    row_block = tl.program_id(0)
    rows = _rows_of_block(row_block, BLOCK_T)
    part = tl.program_id(1)
    ranks = tl.arange(0, BLOCK_R)
    h_inside = (rows < T)[:, None] & (ranks < r)[None, :]
    h_tile = tl.load(h + rows[:, None] * r + ranks[None, :], mask=h_inside, other=0.0)
    total = tl.zeros((BLOCK_T, BLOCK_R), tl.float32)
    for start in range(part * columns_per_part, tl.minimum(d, (part + 1) * columns_per_part), BLOCK_D):
        tile = _dropped_tile(g, 0, rows, start, T, d, row_stride, column_stride, 0, BLOCK_T, BLOCK_D)
        tile = tile.to(h_tile.dtype)
        columns = start + tl.arange(0, BLOCK_D)
        B_inside = (columns < d)[:, None] & (ranks < r)[None, :]
        B_tile = tl.load(B + columns[:, None] * r + ranks[None, :], mask=B_inside, other=0.0)
        total += _dot(tile, B_tile)
        dB_tile = _dot(tl.trans(tile), h_tile) * s
        dB_offsets = (row_block.to(tl.int64) * d + columns)[:, None] * r + ranks[None, :]
        tl.store(dB + dB_offsets, dB_tile.to(dB.dtype.element_ty), mask=B_inside)
    offsets = (part.to(tl.int64) * T + rows)[:, None] * r + ranks[None, :]
    tl.store(dh + offsets, (total * s).to(dh.dtype.element_ty), mask=h_inside)


@triton.jit(do_not_specialize=["seed"])
def _A_gradient_kernel(
    dh,
    x,
    dA,
    seed,
    T,
    d,
    r,
    row_stride,
    column_stride,
    rows_per_part,
    DROPPED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """dA[part] = dh^T (x * K) over the rows of one part."""
    first_column = tl.program_id(0) * BLOCK_D
    part = tl.program_id(1)
    ranks = tl.arange(0, BLOCK_R)
    total = tl.zeros((BLOCK_R, BLOCK_D), tl.float32)
    for start in range(part * rows_per_part, tl.minimum(T, (part + 1) * rows_per_part), BLOCK_T):
        rows = start + tl.arange(0, BLOCK_T).to(tl.int64)
        tile = _dropped_tile(x, seed, rows, first_column, T, d, row_stride, column_stride, DROPPED, BLOCK_T, BLOCK_D)
        dh_inside = (ranks < r)[:, None] & (rows < T)[None, :]
        dh_tile = tl.load(dh + rows[None, :] * r + ranks[:, None], mask=dh_inside, other=0.0)  # transposed
        total += _dot(dh_tile, tile.to(dh_tile.dtype))
    columns = first_column + tl.arange(0, BLOCK_D)
    offsets = (part * r + ranks).to(tl.int64)[:, None] * d + columns[None, :]
    tl.store(dA + offsets, total.to(dA.dtype.element_ty), mask=(ranks < r)[:, None] & (columns < d)[None, :])


@triton.jit(do_not_specialize=["seed"])
def _x_gradient_kernel(
    dh,
    A,
    dx,
    seed,
    T,
    d,
    r,
    HAS_BASE: tl.constexpr,
    DROPPED: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_D: tl.constexpr,
    BLOCK_R: tl.constexpr,
):
    """dx = (dh A) * K, added to what dx holds if it has a base."""
    rows = _rows_of_block(tl.program_id(0), BLOCK_T)
    first_column = tl.program_id(1) * BLOCK_D
    columns = first_column + tl.arange(0, BLOCK_D)
    ranks = tl.arange(0, BLOCK_R)
    dh_inside = (rows < T)[:, None] & (ranks < r)[None, :]
    dh_tile = tl.load(dh + rows[:, None] * r + ranks[None, :], mask=dh_inside, other=0.0)
    A_inside = (ranks < r)[:, None] & (columns < d)[None, :]
    A_tile = tl.load(A + ranks[:, None] * d + columns[None, :], mask=A_inside, other=0.0)
    update = _dot(dh_tile, A_tile)
    if DROPPED > 0:
        update = tl.where(_kept(seed, rows, first_column, DROPPED, BLOCK_T, BLOCK_D), update, 0.0)
    inside = (rows < T)[:, None] & (columns < d)[None, :]
    offsets = rows[:, None] * d + columns[None, :]
    if HAS_BASE:
        update += tl.load(dx + offsets, mask=inside, other=0.0).to(tl.float32)
    tl.store(dx + offsets, update.to(dx.dtype.element_ty), mask=inside)
