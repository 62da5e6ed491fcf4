"""Muon for the matrices inside layers, AdamW for the rest, and one schedule for both."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

WARMUP_STEPS = 30
DECAY = 0.4  # share of the steps at the end over which the learning rate falls to 0


def new_optimizers(
    named: "Iterable[tuple[str, nn.Parameter]]",
    matrix_learning_rate: float,
    learning_rate: float,
    share: Callable[[int], float],
) -> "tuple[list[Optimizer], list[LRScheduler]]":
    """Optimisers of these parameters, and their schedules.

    Args:
        named: names and parameters; embeddings and heads are no matrices to Muon.
        matrix_learning_rate: of Muon.
        learning_rate: of AdamW.
        share: step -> share of the learning rates.
    """
    import torch

    from ..muon import Muon

    named = list(named)
    inside = [weight.ndim == 2 and "embed" not in name and "heads" not in name for name, weight in named]
    matrices = [weight for (_, weight), is_matrix in zip(named, inside, strict=True) if is_matrix]
    others = [weight for (_, weight), is_matrix in zip(named, inside, strict=True) if not is_matrix]
    optimizers: list[Optimizer] = [
        Muon(matrices, lr=matrix_learning_rate),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]
    return optimizers, [torch.optim.lr_scheduler.LambdaLR(optimizer, share) for optimizer in optimizers]


def schedule(step: int, steps: int) -> float:
    """Share of the learning rate: up, level, down to 0."""
    return min(1.0, (step + 1) / WARMUP_STEPS, (steps - step) / (DECAY * steps))
