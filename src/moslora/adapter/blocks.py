"""Training of what a mix of adapters adds to their sum: the mixer's blocks outside the diagonal, and nothing else."""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from ..equation import owners
from ..errors import UnsupportedError
from .layers import MixedLayer


class OffDiagonal:
    """The blocks outside the diagonal of the mixers of an adapter that `moslora mix` has written.

    They let the columns of B of one adapter meet the rows of A of another: what the sum of the adapters lacks.

    Attributes:
        mixers: layer -> M (r, r). Layers that only one adapter has are not among them.
        diagonal: layer -> (r, r) of bool, true inside the blocks that stay as they are.
    """

    def __init__(self, model: nn.Module, ranks: Mapping[str, Sequence[int]], adapter_name: str = "default") -> None:
        """Find them; nothing is changed.

        Args:
            model: with the mixed adapter loaded.
            ranks: layer -> ranks of the blocks, as `moslora.checkpoint.read_ranks(folder)` reads them.
            adapter_name: of the mixed adapter in the model.

        Raises:
            UnsupportedError: a layer is not in the model or has no such mixer, or no layer has two blocks.
        """
        layers = {_base_name(path): layer for path, layer in model.named_modules() if isinstance(layer, MixedLayer)}
        self.mixers: dict[str, nn.Parameter] = {}
        self.diagonal: dict[str, Tensor] = {}
        for name, sizes in ranks.items():
            if sum(size > 0 for size in sizes) < 2:
                continue
            M = _mixer(layers.get(name), adapter_name)
            if M is None or M.shape != (sum(sizes), sum(sizes)):
                shape = "no such mixer" if M is None else f"one of shape {tuple(M.shape)}"
                raise UnsupportedError(
                    f"{name}: found {shape} in the adapter {adapter_name!r}, expected a learnable mixer of rank "
                    f"{sum(sizes)}: load the adapter that `moslora mix` has written into its base model."
                )
            owner = owners([size for size in sizes if size], getattr(layers[name].base_layer, "groups", 1))
            self.mixers[name], self.diagonal[name] = M, (owner[:, None] == owner).to(M.device)
        if not self.mixers:
            raise UnsupportedError(
                "No layer has blocks of two adapters, so there is nothing outside the diagonal to train."
            )

    @property
    def count(self) -> int:
        """Numbers outside the diagonal blocks."""
        return sum(int((~inside).sum()) for inside in self.diagonal.values())

    def guard(self, optimizer: Optimizer) -> Optimizer:
        """Let every step of the optimizer leave the diagonal blocks with the same bits, whatever it does to a weight.

        Gradients are zero there already. Weight decay and momenta of earlier steps would still move them.

        Returns:
            the same optimizer.
        """
        kept = {name: M.detach().clone() for name, M in self.mixers.items()}

        def restore(*_: Any) -> None:
            with torch.no_grad():
                for name, M in self.mixers.items():
                    inside = self.diagonal[name]
                    M[inside] = kept[name].to(M.device)[inside]

        optimizer.register_step_post_hook(restore)
        return optimizer


def train_off_diagonal(
    model: nn.Module, ranks: Mapping[str, Sequence[int]], adapter_name: str = "default"
) -> OffDiagonal:
    """Freeze a model but for the off-diagonal blocks of the mixers of an adapter that `moslora mix` has written.

    Args:
        model: as for `OffDiagonal`; changed in place.
        ranks: likewise.
        adapter_name: likewise.

    Returns:
        the mixers, of which a gradient reaches only those blocks. Give `mixers.values()` to the optimizer, and the
        optimizer to `guard`.

    Raises:
        UnsupportedError: as for `OffDiagonal`.
    """
    blocks = OffDiagonal(model, ranks, adapter_name)
    model.requires_grad_(False)
    for name, M in blocks.mixers.items():
        M.requires_grad_(True)
        M.register_hook(functools.partial(_outside, blocks.diagonal[name]))
    return blocks


def _mixer(layer: MixedLayer | None, adapter_name: str) -> nn.Parameter | None:
    if layer is None:
        return None
    if adapter_name in layer.lora_embedding_A:
        mixers: Any = getattr(layer, "lora_embedding_mixer", {})
        return next((M for name, M in mixers.items() if name == adapter_name), None)
    mixer = getattr(layer.lora_A[adapter_name], "mixer", None) if adapter_name in layer.lora_A else None
    return mixer if isinstance(mixer, nn.Parameter) else None


def _outside(inside: Tensor, gradient: Tensor) -> Tensor:
    return gradient.masked_fill(inside.to(gradient.device), 0)


def _base_name(path: str) -> str:
    """The name in the base model, as the keys of a saved adapter have it."""
    return path.removeprefix("base_model.model.")
