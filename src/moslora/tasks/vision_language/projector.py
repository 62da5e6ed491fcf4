"""The projector of a run as a file: what leads from the vision tower into the language model, trained in stage 1."""

from pathlib import Path
from typing import TYPE_CHECKING

import safetensors
import safetensors.torch

from ... import runs
from ...errors import CheckpointError, ConfigError
from ..sharded import whole_state

if TYPE_CHECKING:
    from torch import Tensor, nn

MODULE = "multi_modal_projector"  # its name in every model of LLaVA's kind
PROJECTOR_FILE = "projector.safetensors"


def projector_state(model: "nn.Module") -> "dict[str, Tensor]":
    """Weights of the projector by their names in the model, such as multi_modal_projector.linear_1.weight.

    Args:
        model: with or without an adapter. Where PEFT trains a copy of the projector, it is the copy that counts.

    Raises:
        ConfigError: the model has no projector.
    """
    return {f"{MODULE}.{name}": value for name, value in whole_state(_projector(model)).items()}


def save_projector(model: "nn.Module", path: Path) -> None:
    """Write `projector_state` as safetensors, replacing an old file at once. All processes call it, one writes."""
    state = {name: value.float().contiguous() for name, value in projector_state(model).items()}
    if not runs.is_main_process():
        return
    unfinished = path.with_suffix(".unfinished")
    safetensors.torch.save_file(state, unfinished, metadata={"format": "pt"})
    unfinished.replace(path)


def find_projector(place: str) -> Path:
    """The projector file of a run folder, or the file itself.

    Raises:
        ConfigError: there is none.
    """
    path = Path(place)
    path = path / PROJECTOR_FILE if path.is_dir() else path
    if not path.is_file() or path.suffix != ".safetensors":
        raise ConfigError(
            f"There is no projector at {place!r}: expected a run whose folder has {PROJECTOR_FILE}, or a .safetensors "
            f"file with {MODULE}.linear_1.weight and its like."
        )
    return path


def load_projector(model: "nn.Module", path: Path) -> None:
    """Put the weights of a file into the model's projector.

    Raises:
        CheckpointError: the file is damaged, or its names or shapes are not those of the projector.
    """
    import torch

    try:
        state = safetensors.torch.load_file(path)
    except (OSError, safetensors.SafetensorError) as error:
        raise CheckpointError(f"Cannot read the projector {path}: {error}") from error
    projector = _projector(model)
    found = {name.removeprefix("model.").removeprefix(f"{MODULE}."): value for name, value in state.items()}
    expected = projector.state_dict()
    if {name: value.shape for name, value in found.items()} != {name: value.shape for name, value in expected.items()}:
        raise CheckpointError(
            f"{path} does not fit the projector of this model: found {_shapes(found)}, expected {_shapes(expected)}."
        )
    with torch.no_grad():
        projector.load_state_dict(found)


def _projector(model: "nn.Module") -> "nn.Module":
    for name, module in model.named_modules():
        if name.rpartition(".")[2] == MODULE:
            copies = getattr(module, "modules_to_save", None)
            return module if copies is None else copies[module.active_adapter]  # PEFT trains a copy
    raise ConfigError(f"{type(model).__name__} has no {MODULE}: only models of LLaVA's kind can be trained here.")


def _shapes(state: "dict[str, Tensor]") -> str:
    return ", ".join(f"{name} {tuple(value.shape)}" for name, value in sorted(state.items()))
