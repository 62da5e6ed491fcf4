"""The paper in code: `delta W = scale * B @ M @ A`, its mixers, their initialisation, folding and counting.

Torch only. Every faster or sharded path of this package is tested against this file.

LoRA adds `scale * B A` to a frozen weight. Written as a sum, that is r rank-1 subspaces, subspace i being
`outer(B[:, i], A[i])`. A mixer M (r x r) lets every column of B meet every row of A:
`B M A = sum_ij M[i, j] outer(B[:, i], A[j])`. M = identity is LoRA, M = [[I, I], [I, I]] is two-subspaces mixing, a
learned M is MoSLoRA.

Source: arXiv:2406.11909.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .errors import ConfigError, ShapeError

Mixer = Literal["learnable", "frozen", "core", "butterfly", "identity"]
MixerInit = Literal["kaiming_uniform", "orthogonal", "normal", "identity", "zeros", "gradient"]

MIXERS: tuple[Mixer, ...] = get_args(Mixer)
MIXER_INITS: tuple[MixerInit, ...] = get_args(MixerInit)


class Factors(NamedTuple):
    """The three matrices of one adapted layer."""

    A: Tensor  # (r, d_in)
    M: Tensor  # (r, r)
    B: Tensor  # (d_out, r)


def delta_weight(factors: Factors, scale: float) -> Tensor:
    """Weight update of one layer, `scale * B @ M @ A`.

    Args:
        factors: A (r, d_in), M (r, r), B (d_out, r), one shared floating dtype.
        scale: alpha / r (alpha / sqrt(r) with rsLoRA), no unit.

    Returns:
        (d_out, d_in), in the dtype of the factors.

    Raises:
        ShapeError: the shapes do not share one rank.

    Source: arXiv:2406.11909, section 3.1. With M = identity this is plain LoRA.
    """
    check_shapes(factors)
    A, M, B = factors
    return scale * (B @ M @ A)


def adapter_output(x: Tensor, factors: Factors, scale: float) -> Tensor:
    """The same update applied to activations.

    Args:
        x: (*batch, d_in).
        factors: as for `delta_weight`.
        scale: as for `delta_weight`.

    Returns:
        (*batch, d_out).

    Raises:
        ShapeError: the shapes do not share one rank.
    """
    check_shapes(factors)
    hidden = x @ factors.A.T  # (*batch, r)
    mixed = hidden @ factors.M.T  # (*batch, r)
    return scale * (mixed @ factors.B.T)


def check_shapes(factors: Factors) -> None:
    """Raise ShapeError unless A (r, d_in), M (r, r) and B (d_out, r) share one rank r."""
    A, M, B = factors
    if A.ndim != 2 or B.ndim != 2 or M.shape != (A.shape[0], A.shape[0]) or B.shape[1] != A.shape[0]:
        r = A.shape[0] if A.ndim else 0
        raise ShapeError(
            f"A is {tuple(A.shape)}, so the rank is {r}: expected A (r, d_in), M ({r}, {r}) and B (d_out, {r}), "
            f"but got M {tuple(M.shape)} and B {tuple(B.shape)}."
        )


def butterfly_mixer(r: int, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None) -> Tensor:
    """The fixed mixer of two-subspaces mixing, [[I, I], [I, I]] with I of size r / 2.

    `B @ butterfly @ A = (B1 + B2)(A1 + A2)`, where 1 and 2 are the halves of the rank. It is singular (rank r / 2).

    Args:
        r: rank, even.

    Returns:
        (r, r).

    Raises:
        ConfigError: r is odd or not positive.

    Source: arXiv:2406.11909, section on two-subspaces mixing.
    """
    check_mixer_rank("butterfly", r)
    half = torch.eye(r // 2, dtype=dtype, device=device)
    return half.repeat(2, 2)


def check_mixer_rank(mixer: Mixer, r: int, where: str = "this layer") -> None:
    """Raise ConfigError if `mixer` does not exist or cannot have rank `r`."""
    if mixer not in MIXERS:
        raise ConfigError(f"Unknown mixer {mixer!r} for {where}: choose one of {', '.join(MIXERS)}.")
    if mixer == "butterfly" and (r <= 0 or r % 2):
        raise ConfigError(
            f"The butterfly mixer splits the rank into two halves, but {where} has rank {r}: choose an even rank, "
            f"for example {max(2, r + 1)}, or mixer='learnable'."
        )


def draw_mixer(mixer: Tensor, init: MixerInit, generator: torch.Generator | None = None) -> None:
    """Fill a mixer in place with numbers that depend on no data.

    Args:
        mixer: (r, r), or (experts, r, r), of which each matrix is drawn on its own.
        init: one of the paper's Table 3. `kaiming_uniform` uses a = sqrt(5) as the authors' code does, which draws
            from U(-1/sqrt(r), 1/sqrt(r)); `normal` is N(0, 1), as the paper gives no deviation. `zeros` on B = 0
            never learns (Appendix C). "gradient" is computed by `gradient_mixer` instead.
        generator: source of randomness; torch's own when None.

    Raises:
        ConfigError: unknown init.
    """
    check_mixer_init(init)
    if init == "gradient":
        raise ConfigError("A mixer from the gradient is not drawn: call moslora.initialize_mixer(model, batches).")
    with torch.no_grad():
        for matrix in mixer if mixer.ndim == 3 else [mixer]:
            if init == "kaiming_uniform":
                torch.nn.init.kaiming_uniform_(matrix, a=math.sqrt(5), generator=generator)
            elif init == "orthogonal":
                torch.nn.init.orthogonal_(matrix, generator=generator)
            elif init == "normal":
                torch.nn.init.normal_(matrix, generator=generator)
            elif init == "identity":
                torch.nn.init.eye_(matrix)
            else:
                torch.nn.init.zeros_(matrix)


def check_mixer_init(init: str) -> None:
    """Raise ConfigError unless `init` is one of the paper's Table 3, or "gradient"."""
    if init not in MIXER_INITS:
        raise ConfigError(f"Unknown mixer initialisation {init!r}: choose one of {', '.join(MIXER_INITS)}.")


def fold(A: Tensor, M: Tensor) -> Tensor:
    """The A of the plain LoRA that equals this MoSLoRA: `M @ A`. Exact, at the same rank.

    Args:
        A: (r, *in), where `in` may have several axes (the kernel of a convolution); or (experts * r, d_in), expert
            after expert, if M has an experts axis.
        M: (r, r) or (experts, r, r).

    Returns:
        the shape and dtype of A.

    Raises:
        ShapeError: M does not fit A.
    """
    experts = M.shape[0] if M.ndim == 3 else 1
    if M.ndim not in (2, 3) or M.shape[-1] != M.shape[-2] or A.shape[0] != experts * M.shape[-1]:
        raise ShapeError(
            f"A is {tuple(A.shape)} and M is {tuple(M.shape)}: expected A (r, ...) with M (r, r), "
            "or A (experts * r, d_in) with M (experts, r, r)."
        )
    if M.ndim == 2:
        return (M @ A.flatten(1)).reshape(A.shape)
    return (M @ A.reshape(experts, M.shape[-1], -1)).reshape(A.shape)


def fold_butterfly(A: Tensor, experts: int = 1) -> Tensor:
    """`fold` with the butterfly mixer, without its matrix: both halves of the rank become their sum.

    Args:
        A: (experts * r, *in), expert after expert.
        experts: number of independent mixers.

    Returns:
        the shape and dtype of A.
    """
    halves = A.unflatten(0, (experts, 2, -1))  # (experts, 2, r / 2, *in)
    total = halves.sum(1, keepdim=True)
    return total.expand_as(halves).reshape(A.shape)


def fold_core(A: Tensor, core: Tensor) -> Tensor:
    """The A of the plain LoRA that equals FLoRA: the core contracted with A.

    For a convolution, B and A are 1 x 1 and the core has the kernel, so `B core A` is a Tucker-2 decomposition of the
    update, in which A and B share no position of the kernel.

    Args:
        A: (r, d_in) or (r, channels, *1).
        core: (r, r) or (r, r, *kernel).

    Returns:
        (r, d_in) or (r, channels, *kernel).

    Raises:
        ShapeError: the core does not fit A.

    Source: FLoRA, arXiv:2405.14739, with full factors for the modes of the kernel, which the core absorbs.
    """
    r = A.shape[0]
    if core.ndim != A.ndim or core.shape[:2] != (r, r) or any(size != 1 for size in A.shape[2:]):
        raise ShapeError(
            f"A is {tuple(A.shape)} and the core is {tuple(core.shape)}: expected A (r, in, *1), core (r, r, *kernel)."
        )
    return torch.einsum("ij...,jc->ic...", core, A.flatten(1))


MIXER_FLOOR = 0.01  # smallest singular value of a gradient mixer over its largest; a zero row could never learn


def gradient_mixer(projected: Tensor, A: Tensor) -> Tensor:
    """The mixer whose rows are the leading directions of the gradient within the span of A.

    With `projected = U S V^T` it is `c S V^T`, so that M^T M is the gradient's own second moment there. For a first
    step of gradient descent this decreases the loss most, to first order, among all M^T M of one Frobenius norm;
    docs/equation.md has the derivation, and what is different under Adam.

    Args:
        projected: G A^T (d_out, r), where G (d_out, d_in) is the gradient of the loss by the weight.
        A: (r, d_in).

    Returns:
        M (r, r) with |M A| = |A| / sqrt(3) in the Frobenius norm, as a Kaiming-uniform mixer has on average, so that
        the two differ in direction and not in size. Without any gradient all directions count the same. In the dtype
        and on the device of A.
    """
    projected, wide = projected.detach().double(), A.detach().double()
    energies, V = torch.linalg.eigh(projected.T @ projected)  # ascending, V (r, r) in columns
    sizes = energies.flip(0).clamp_min(0).sqrt()
    largest = sizes[0]
    sizes = torch.maximum(sizes, MIXER_FLOOR * largest) if largest > 0 else torch.ones_like(sizes)
    M = sizes[:, None] * V.flip(1).T
    size = torch.linalg.norm(wide) / math.sqrt(3) / torch.linalg.norm(M @ wide)
    return (size * M).to(A.dtype)


def unfold(A: Tensor, M: Tensor) -> Tensor:
    """The A for which `fold(A, M)` gives back the argument: `M^-1 @ A`. Same shapes as `fold`.

    Raises:
        ShapeError: M does not fit A.
        torch.linalg.LinAlgError: M is singular, as the butterfly always is.
    """
    inverse = torch.linalg.inv(M.detach().double())
    return fold(A.double(), inverse).to(A.dtype)


def stacked_rows(ranks: Sequence[int], groups: int = 1) -> Tensor:
    """The order in which the rows of several A stand when they become one A.

    Group by group of a convolution, and adapter by adapter within a group, as B of a grouped convolution needs it.

    Args:
        ranks: of the adapters, each divisible by `groups`.
        groups: of the convolution; 1 for every other layer, where the order is that of the adapters.

    Returns:
        (sum of ranks,), row numbers of the A that lie below one another.
    """
    group = torch.cat([torch.arange(r) * groups // r for r in ranks])
    return torch.argsort(group, stable=True)


def owners(ranks: Sequence[int], groups: int = 1) -> Tensor:
    """Which adapter each row of a mixed A, and each row and column of its M, belongs to.

    Args:
        ranks: as for `stacked_rows`.
        groups: likewise.

    Returns:
        (sum of ranks,), numbers of the adapters. `M[i, j]` is in a diagonal block if `owners[i] == owners[j]`.
    """
    numbers = torch.repeat_interleave(torch.arange(len(ranks)), torch.tensor(ranks))
    return numbers[stacked_rows(ranks, groups)]


def block_diagonal_mixer(mixers: Sequence[Tensor], groups: int = 1) -> Tensor:
    """The mixer of several adapters at once: theirs on the diagonal, zero elsewhere.

    `[B1 B2] @ diag(M1, M2) @ [A1; A2] = B1 M1 A1 + B2 M2 A2`, with scales and weights inside the blocks.

    Args:
        mixers: (r, r) each, with ranks of their own.
        groups: as for `stacked_rows`.

    Returns:
        (sum of ranks, sum of ranks).
    """
    order = stacked_rows([len(M) for M in mixers], groups)
    return torch.block_diag(*mixers)[order][:, order]


def subspace_count(mixer: Mixer, r: int) -> int:
    """Number of rank-1 subspaces that are summed: Table 2 of the paper."""
    check_mixer_rank(mixer, r)
    return {"identity": r, "butterfly": 2 * r, "frozen": r * r, "core": r * r, "learnable": r * r}[mixer]


def trained_parameter_count(layers: Iterable[tuple[int, int]], r: int, mixer: Mixer) -> int:
    """Trained parameters of adapted linear layers.

    Args:
        layers: (d_in, d_out) of each adapted layer.
        r: rank, the same in every layer.
        mixer: only a learnable one and a core are trained.

    Returns:
        the sum of (d_in + d_out) r per layer, plus r^2 if the mixer is trained.
    """
    check_mixer_rank(mixer, r)
    return sum((d_in + d_out) * r + (r * r if mixer in ("learnable", "core") else 0) for d_in, d_out in layers)
