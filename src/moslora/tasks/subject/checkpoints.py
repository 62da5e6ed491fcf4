"""All that a training loop has to remember, as safetensors and JSON, to the bit."""

from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from ... import runs
from ...errors import CheckpointError

ADAPTERS, STATE, TENSORS = "adapters.safetensors", "state.json", "state.safetensors"


def save_checkpoint(folder: Path, parameters: dict[str, nn.Parameter], **states: Any) -> None:
    """Write trained parameters, and state dicts of nested dicts, lists, numbers, texts and tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    safetensors.torch.save_file({name: _own(each) for name, each in parameters.items()}, folder / ADAPTERS)
    tensors: dict[str, Tensor] = {}
    runs.write_json(folder / STATE, _pack(states, tensors))
    safetensors.torch.save_file(tensors, folder / TENSORS)


def load_checkpoint(folder: Path, parameters: dict[str, nn.Parameter]) -> dict[str, Any]:
    """Put the trained parameters back in place, and return the states.

    Raises:
        CheckpointError: a file cannot be read, or belongs to other adapters.
    """
    try:
        saved = safetensors.torch.load_file(folder / ADAPTERS)
        states = _unpack(runs.read_json(folder / STATE), safetensors.torch.load_file(folder / TENSORS))
        if saved.keys() != parameters.keys():
            raise ValueError(f"it has other parameters, for example {min(saved.keys() ^ parameters.keys())}")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(saved[name])
    except (OSError, ValueError, KeyError, RuntimeError, safetensors.SafetensorError) as error:
        raise CheckpointError(
            f"Checkpoint {folder} is marked complete but cannot be used: {error}. Remove it to resume from the one "
            "before it."
        ) from error
    return states


def _own(tensor: Tensor) -> Tensor:
    """A copy in storage of its own, as safetensors wants it."""
    return tensor.detach().cpu().clone(memory_format=torch.contiguous_format)


def _pack(value: Any, tensors: dict[str, Tensor]) -> Any:
    """JSON of a nested value. Dicts become lists of pairs, since keys may be numbers; tensors become references."""
    if isinstance(value, Tensor):
        name = str(len(tensors))
        tensors[name] = _own(value)
        return {"tensor": name}
    if isinstance(value, dict):
        return {"pairs": [[key, _pack(each, tensors)] for key, each in value.items()]}
    if isinstance(value, (list, tuple)):
        return [_pack(each, tensors) for each in value]
    return value


def _unpack(value: Any, tensors: dict[str, Tensor]) -> Any:
    if isinstance(value, list):
        return [_unpack(each, tensors) for each in value]
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[value["tensor"]]
        return {key: _unpack(each, tensors) for key, each in value["pairs"]}
    return value
