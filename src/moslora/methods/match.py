"""Ranks at which two methods train about as many parameters."""

import bisect
from typing import Any

from torch import nn

from ..errors import ConfigError
from .attach import attach, trained_parameters
from .zoo import FILE, FULL, find_method

LARGEST_RANK = 1024


def matched_rank(method: str, base: nn.Module, target_parameters: int, **settings: Any) -> int:
    """The rank at which a method's number of trained parameters is nearest to a wanted one.

    Args:
        method: one with a rank.
        base: on the meta device; it comes back unchanged.
        target_parameters: wanted number.
        settings: as for `peft_config`, without the rank.

    Returns:
        the rank; of two equally near ones, the lower.

    Raises:
        ConfigError: the method has no rank, does not fit the model, or has no rank that comes within half of the
            wanted number.
    """
    if method == FULL or method.startswith(FILE):
        raise ConfigError(f"Method {method!r} has no rank to choose: give one that has, or leave out the match.")
    step = find_method(method).rank_step
    known: dict[int, int] = {}

    def parameters(steps: int) -> int:
        if steps not in known:
            known[steps] = parameters_at(method, base, rank=steps * step, **settings)
        return known[steps]

    high = 1
    while parameters(high) < target_parameters and high * step < LARGEST_RANK:
        high *= 2
    above = bisect.bisect_left(range(high), target_parameters, lo=high // 2, key=parameters) if high > 1 else 1
    steps = min({max(above - 1, 1), above}, key=lambda each: (abs(parameters(each) - target_parameters), each))
    if abs(parameters(steps) - target_parameters) > target_parameters / 2:
        raise ConfigError(
            f"No rank of {method!r} trains about {target_parameters:,} parameters in these layers: the nearest is rank "
            f"{steps * step} with {parameters(steps):,}."
        )
    return steps * step


def parameters_at(method: str, base: nn.Module, **settings: Any) -> int:
    """Trained parameters of a method on a base model on the meta device, which comes back unchanged."""
    flags = {name: parameter.requires_grad for name, parameter in base.named_parameters()}
    adapted = attach(base, method, **settings)
    count = trained_parameters(adapted)
    if adapted is not base:
        adapted.unload()  # type: ignore[operator]
        if hasattr(base, "peft_config"):
            del base.peft_config
    for name, parameter in base.named_parameters():
        parameter.requires_grad_(flags[name])
    return count
