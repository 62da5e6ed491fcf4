"""Whether several adapters add up to one: what they must have in common, and what no sum can hold."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ..errors import ConfigError, UnsupportedError
from .formats import BEYOND_PLAIN, PLAIN_INITS
from .layers import Adapter, Layer

TIES = ("ensure_weight_tying", "modules_to_tie", "target_modules_to_tie")  # one factor in two layers


def refuse_what_does_not_add_up(adapters: Sequence[Adapter]) -> None:
    """Raise UnsupportedError, naming the layers, if an adapter is more than delta W on the untouched base."""
    problems = []
    for adapter in adapters:
        settings = [key for key in (*BEYOND_PLAIN, *TIES, "trainable_token_indices") if adapter.config.get(key)]
        found = [f"{key} in the config" for key in settings]
        init = adapter.config.get("init_lora_weights")
        if init not in PLAIN_INITS:
            found.append(f"init_lora_weights={init!r}: it changed the base weights, so its base is another one")
        if adapter.config.get("target_parameters"):
            found.append("target_parameters: a saved adapter does not say which of its layers is which of these")
        for name, layer in adapter.layers.items():
            found += [f"{name}.{part}: {_reason(part)}" for part in layer.extras]
        copies = {f"{name}.base_layer.weight" for name, layer in adapter.layers.items() if layer.is_embedding}
        found += [f"{key}: a tensor that replaces the base model's" for key in adapter.others if key not in copies]
        problems += [f"{adapter.file.parent}: {each}" for each in found]
    if problems:
        shown = problems[:5] + ([f"and {len(problems) - 5} more"] if len(problems) > 5 else [])
        raise UnsupportedError(
            f"These adapters have {len(problems)} thing(s) that do not add up to one adapter:\n  "
            + "\n  ".join(shown)
            + "\nNothing was written. `moslora merge` puts one of them into the base model, whatever it uses."
        )


def _reason(part: str) -> str:
    if "magnitude" in part:
        return "the magnitude of DoRA divides by the norm of W + delta W, which is not additive"
    return "not a part of B M A"


def common_base(adapters: Sequence[Adapter], base: str | None) -> str | None:
    """The name of the base model of all; `base` if given, None if no adapter names one.

    Raises:
        ConfigError: the adapters name different ones, and none is given.
    """
    named = {str(name) for adapter in adapters if (name := adapter.config.get("base_model_name_or_path"))}
    if base is None and len(named) > 1:
        raise ConfigError(
            f"The adapters name different base models: {', '.join(sorted(named))}. The sum of updates of different "
            "weights means nothing. If these are names of one model, say which to write with --base NAME."
        )
    return base or next(iter(named), None)


def common_tensors(adapters: Sequence[Adapter]) -> dict[str, Tensor]:
    """The copies of embeddings that PEFT saves with them; raises ConfigError if two adapters have different ones."""
    others: dict[str, Tensor] = {}
    for adapter in adapters:
        for key, tensor in adapter.others.items():
            if key in others and not torch.equal(others[key], tensor):
                raise ConfigError(f"{key}: the adapters hold different copies of it: their base models differ.")
            others[key] = tensor
    return others


def base_shape(layer: Layer) -> tuple[int, ...]:
    """(outputs, inputs, *kernel, groups) of the layer that an adapter fits."""
    kernel = layer.M.shape[2:] if layer.mixer == "core" and layer.M is not None else layer.A.shape[2:]
    groups = layer.r // layer.B.shape[1] if layer.B.ndim > 2 else 1
    return (len(layer.B), layer.A.shape[1], *kernel, groups, int(layer.is_embedding))
