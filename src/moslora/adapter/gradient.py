"""Mixers from the gradient of the first batches, for `init_mixer="gradient"`."""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ..equation import gradient_mixer
from ..errors import ConfigError, UnsupportedError
from .layers import MixedLayer
from .modules import MixedLinear


class _Waiting(NamedTuple):
    """One mixer without values, with the B beside it."""

    down: MixedLinear
    B: nn.Parameter


def awaits_gradient(model: nn.Module) -> bool:
    """Whether a model has mixers that `initialize_mixer` has to compute before it can run."""
    return bool(_waiting(model))


def initialize_mixer(model: nn.Module, batches: Iterable[Mapping[str, Any]]) -> None:
    """Compute the mixers of `init_mixer="gradient"` from the loss of a few batches.

    Each becomes the leading directions of the gradient by the frozen weight, within the span of A; see
    `moslora.equation.gradient_mixer` and docs/equation.md. That gradient is never formed: with M = I and B = 0 the
    gradient of B is `scale * G A^T`, and only this (d_out, r) is kept. No gradient, hook or random number is left
    behind, and dropout is off meanwhile.

    Args:
        model: with fresh MoSLoRA adapters of `init_mixer="gradient"`. Calling it gives something with a `loss`.
        batches: keyword arguments of the model, with what the loss needs, for example input_ids and labels. Their
            gradients are added up.

    Raises:
        UnsupportedError: no mixer of the model waits for this, or a B is not zero any more.
        ConfigError: there are no batches, or a loss or gradient is not finite.
    """
    waiting = _waiting(model)
    if not waiting:
        raise UnsupportedError(
            "No mixer of this model waits for a gradient: expected fresh adapters with init_mixer='gradient'. Mixers "
            "that were loaded or computed before are not touched."
        )
    if any(B.count_nonzero() for _, B in waiting):
        raise UnsupportedError("A B is not zero, so the adapter was trained or loaded: initialise a fresh one.")
    with _with_identity_mixers(waiting), _without_dropout(model), _random_state_kept(model):
        totals = _gradients_of_B(model, batches, [B for _, B in waiting])
    with torch.no_grad():
        for (down, _), total in zip(waiting, totals, strict=True):
            assert down.mixer is not None
            down.mixer.copy_(gradient_mixer(total, down.raw))
            down.awaits_gradient = False


def _waiting(model: nn.Module) -> list[_Waiting]:
    layers = [module for module in model.modules() if isinstance(module, MixedLayer)]
    pairs = [(down, layer.lora_B[name].weight) for layer in layers for name, down in layer.lora_A.items()]
    return [_Waiting(down, B) for down, B in pairs if isinstance(down, MixedLinear) and down.awaits_gradient]


def _gradients_of_B(
    model: nn.Module, batches: Iterable[Mapping[str, Any]], factors: list[nn.Parameter]
) -> list[Tensor]:
    """The gradient of each B (d_out, r), summed over the batches in float32."""
    device = factors[0].device
    totals = [torch.zeros_like(B, dtype=torch.float32) for B in factors]
    count = 0
    for batch in batches:
        moved = {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}
        with torch.enable_grad():
            loss = model(**moved).loss
            found = torch.autograd.grad(loss, factors, allow_unused=True)
        for total, gradient in zip(totals, found, strict=True):
            if gradient is not None:  # an expert that no token reached, for example
                total += gradient
        count += 1
    if not count:
        raise ConfigError("initialize_mixer got no batches: give at least one, as keyword arguments of the model.")
    if not all(total.isfinite().all() for total in totals):
        raise ConfigError("A gradient of the first batches is not finite: check the data, or use dtype bfloat16.")
    return totals


@contextlib.contextmanager
def _with_identity_mixers(waiting: list[_Waiting]) -> Iterator[None]:
    """M = I for as long as this lasts; afterwards the mixers wait again."""
    for down, _ in waiting:
        assert down.mixer is not None
        nn.init.eye_(down.mixer)
        down.awaits_gradient = False
    try:
        yield
    finally:
        for down, _ in waiting:
            assert down.mixer is not None
            nn.init.constant_(down.mixer, torch.nan)
            down.awaits_gradient = True


@contextlib.contextmanager
def _without_dropout(model: nn.Module) -> Iterator[None]:
    """Dropout off; the modules keep their mode otherwise, as gradient checkpointing looks at it."""
    active = [module for module in model.modules() if isinstance(module, nn.Dropout) and module.training]
    for module in active:
        module.eval()
    try:
        yield
    finally:
        for module in active:
            module.train()


@contextlib.contextmanager
def _random_state_kept(model: nn.Module) -> Iterator[None]:
    devices = {parameter.device for parameter in model.parameters() if parameter.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        yield
