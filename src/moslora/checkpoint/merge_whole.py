"""A merge in memory, by PEFT: for DoRA, experts, embeddings, convolutions, PiSSA, and bases that are no safetensors.

The model is widened before (16 bits to float32, float32 to float64) and rounded once after, which takes two to three
times its memory.
"""

from collections.abc import Iterator
from pathlib import Path

import peft
import torch
from torch import Tensor, nn

from ..errors import ConfigError, UnsupportedError
from .base import Base, find_base
from .layers import Adapter
from .quantized import Quantization
from .rounding import roundings
from .shards import Weights

WIDER = {torch.bfloat16: torch.float32, torch.float16: torch.float32, torch.float32: torch.float64}


def merge_whole(
    adapter: Adapter, base: Base, out: Path, trained: dict[str, Tensor], quantization: Quantization | None
) -> tuple[dict[str, float], tuple[int, int, int]]:
    """Write config and weights of the merged model.

    Args:
        adapter: of any kind.
        base: into which.
        out: an empty folder.
        trained: name in the model -> tensor that takes the place of the base's.
        quantization: of the base in training, if the dequantised weights are wanted.

    Returns:
        for each parameter that lies in the files under one name, how far it is from the sum, in roundings; and how
        many tensors were updated, replaced and dequantised.

    Raises:
        ConfigError: the adapter does not fit the base.
        UnsupportedError: a sum does not fit into the dtype of its weight.
    """
    model = base.load()
    dequantized = quantization.layers(base.skeleton) if quantization else set()
    with torch.no_grad():
        for name in sorted(dequantized):
            weight = model.get_parameter(f"{name}.weight")
            weight.copy_(quantization.dequantized(weight))  # type: ignore[union-attr]
    dtypes = {name: tensor.dtype for name, tensor in _tensors(model)}
    try:
        adapted = peft.PeftModel.from_pretrained(model, adapter.file.parent)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{adapter.file.parent} does not fit the base model {base.folder}: {error}") from None
    _check_names(adapter, adapted, base)
    adapted.to(WIDER.get(model.dtype, model.dtype))
    merged = adapted.merge_and_unload(progressbar=True, safe_merge=True)
    with torch.no_grad():
        for name, tensor in trained.items():
            merged.get_parameter(name).copy_(tensor)
    differences = _narrow(merged, dtypes)
    merged.save_pretrained(out)
    _compare_files(merged, out, differences)
    counts = len(adapter.layers), len(adapter.others) + len(trained), len(dequantized)
    return differences, counts


def _check_names(adapter: Adapter, adapted: peft.PeftModel, base: Base) -> None:
    """PEFT only warns of weights that have no place in the model."""
    modules = adapted.get_base_model().named_modules()
    found = {name for name, module in modules if hasattr(module, "lora_embedding_A")}
    odd = sorted(found ^ adapter.layers.keys())
    if odd:
        raise ConfigError(
            f"{adapter.file} does not fit the base model {base.folder}: found {len(found)} layers in the model and "
            f"{len(adapter.layers)} in the adapter, which differ in {', '.join(odd[:3])}."
        )


def _tensors(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Everything that has a name and a floating dtype."""
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        if tensor.is_floating_point():
            yield name, tensor


def _narrow(merged: nn.Module, dtypes: dict[str, torch.dtype]) -> dict[str, float]:
    """Round every number once to the dtype it had, in place; how far each tensor moved, in roundings."""
    differences = {}
    for name, tensor in _tensors(merged):
        rounded = tensor.detach().to(dtypes[name])
        if not torch.isfinite(rounded).all():
            raise UnsupportedError(
                f"{name}: W + delta W is above the largest number of {rounded.dtype}: give a base in bfloat16 or "
                "float32."
            )
        differences[name] = roundings(rounded, tensor.detach().double())
        tensor.data = rounded
    return differences


def _compare_files(merged: nn.Module, out: Path, differences: dict[str, float]) -> None:
    """Read back what can be found under one name; a tensor that differs is infinitely far."""
    weights, state = Weights(out), merged.state_dict()
    for name, key in find_base(str(out)).names_on_disk().items():
        if name in state and not torch.equal(weights.load(key), state[name]):
            differences[name] = float("inf")
