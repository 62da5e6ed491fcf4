"""The paper in code: `delta W = scale * B @ M @ A`, its mixers, their initialisation, folding and counting.

Torch only. Every faster or sharded path of this package is tested against this file.

LoRA adds `scale * B A` to a frozen weight. Written as a sum, that is r rank-1 subspaces, subspace i being
`outer(B[:, i], A[i])`. A mixer M (r x r) lets every column of B meet every row of A:
`B M A = sum_ij M[i, j] outer(B[:, i], A[j])`. M = identity is LoRA, M = [[I, I], [I, I]] is two-subspaces mixing, a
learned M is MoSLoRA.

Source: arXiv:2406.11909.
"""

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from .errors import ConfigError, ShapeError

Mixer = Literal["learnable", "frozen", "butterfly", "identity"]
MixerInit = Literal["kaiming_uniform", "orthogonal", "normal", "identity", "zeros"]

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


def initialize_mixer(mixer: Tensor, init: MixerInit, generator: torch.Generator | None = None) -> None:
    """Fill a mixer in place.

    Args:
        mixer: (r, r), or (experts, r, r), of which each matrix is drawn on its own.
        init: one of the paper's Table 3. `kaiming_uniform` uses a = sqrt(5) as the authors' code does, which draws
            from U(-1/sqrt(r), 1/sqrt(r)); `normal` is N(0, 1), as the paper gives no deviation. `zeros` on B = 0
            never learns (Appendix C).
        generator: source of randomness; torch's own when None.

    Raises:
        ConfigError: unknown init.
    """
    check_mixer_init(init)
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
    """Raise ConfigError unless `init` is one of the paper's Table 3."""
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


def unfold(A: Tensor, M: Tensor) -> Tensor:
    """The A for which `fold(A, M)` gives back the argument: `M^-1 @ A`. Same shapes as `fold`.

    Raises:
        ShapeError: M does not fit A.
        torch.linalg.LinAlgError: M is singular, as the butterfly always is.
    """
    inverse = torch.linalg.inv(M.detach().double())
    return fold(A.double(), inverse).to(A.dtype)


def subspace_count(mixer: Mixer, r: int) -> int:
    """Number of rank-1 subspaces that are summed: Table 2 of the paper."""
    check_mixer_rank(mixer, r)
    return {"identity": r, "butterfly": 2 * r, "frozen": r * r, "learnable": r * r}[mixer]


def trained_parameter_count(layers: Iterable[tuple[int, int]], r: int, mixer: Mixer) -> int:
    """Trained parameters of adapted linear layers.

    Args:
        layers: (d_in, d_out) of each adapted layer.
        r: rank, the same in every layer.
        mixer: only a learnable one is trained.

    Returns:
        the sum of (d_in + d_out) r per layer, plus r^2 if the mixer is learnable.
    """
    check_mixer_rank(mixer, r)
    return sum((d_in + d_out) * r + (r * r if mixer == "learnable" else 0) for d_in, d_out in layers)
