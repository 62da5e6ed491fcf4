"""The projector of a vision-language model, whoever trained it: two linear layers with an activation between them.

XTuner        projector/model.safetensors       model.0.weight, model.2.weight
LLaVA         mm_projector.bin                  model.mm_projector.0.weight, model.mm_projector.2.weight
transformers  a LLaVA folder, or projector.safetensors of a run
                                                multi_modal_projector.linear_1.weight, linear_2.weight
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..errors import CheckpointError, ConfigError
from .files import check_finite, read_json, read_pickle
from .shards import Weights, read_header, weight_files

MODULE = "multi_modal_projector"  # transformers' name for it
RUN_FILE = "projector.safetensors"  # of a training run
PICKLES = ("mm_projector.bin", "pytorch_model.bin")
PARTS = ("linear_1.weight", "linear_1.bias", "linear_2.weight", "linear_2.bias")

_KEY = re.compile(
    r"(?:.*\.)?(?:mm_projector\.(?P<theirs>\d+)|multi_modal_projector\.linear_(?P<ours>\d+))\.(?P<part>weight|bias)"
    r"|model\.(?P<xtuner>\d+)\.(?P<xtuner_part>weight|bias)"
)


@dataclass(frozen=True)
class Projector:
    """A projector in transformers' terms.

    Attributes:
        tensors: `PARTS`, or the weights alone of one without biases.
        activation: transformers' name of it; None where the file does not say.
        file: where it came from, for messages.
    """

    tensors: dict[str, Tensor]
    activation: str | None
    file: Path

    def check_shapes(self, vision_size: int, text_size: int, where: str) -> None:
        """Raise CheckpointError, with every wrong shape, unless the projector goes from one size to the other.

        Args:
            vision_size: values that the vision tower gives for each patch.
            text_size: values in an embedding of the language model.
            where: of what these sizes are, for the message.
        """
        sizes = {"linear_1.weight": (text_size, vision_size), "linear_2.weight": (text_size, text_size)}
        expected = {part: sizes.get(part, (text_size,)) for part in self.tensors}
        wrong = [
            f"{part} is {tuple(tensor.shape)}, expected {expected[part]}"
            for part, tensor in self.tensors.items()
            if tuple(tensor.shape) != expected[part]
        ]
        if wrong:
            raise CheckpointError(
                f"{self.file}: the projector does not fit {where}, which needs one from {vision_size} to {text_size} "
                f"values: {'; '.join(wrong)}. Take the projector that was trained between these two models."
            )


def read_projector(path: str | Path, *, allow_pickle: bool = False) -> Projector:
    """A projector of XTuner, LLaVA, transformers or a run of this package.

    Args:
        path: its file, or the folder around it: `projector/` of XTuner, a LLaVA folder of transformers, a run folder.
        allow_pickle: whether a .bin file may be read; only tensors are then unpickled.

    Raises:
        CheckpointError: there is none, it is damaged, or it is a pickle and pickles are not allowed.
    """
    path = Path(path)
    keys, load, file = _open(path, allow_pickle)
    found, odd = _matching(keys, load)
    weights = {part for part in PARTS if part.endswith("weight")}
    if odd or found.keys() not in (set(PARTS), weights):
        raise CheckpointError(
            f"{file}: found {', '.join([*sorted(found), *odd]) or 'no projector'}, expected two linear layers with or "
            "without biases, under the names of XTuner (model.0, model.2), LLaVA (mm_projector.0, mm_projector.2) or "
            f"transformers ({MODULE}.linear_1, {MODULE}.linear_2)."
        )
    for part, tensor in found.items():
        check_finite(file, part, tensor)
    return Projector({part: found[part] for part in PARTS if part in found}, _activation(file.parent), file)


def projector_of(tensors: Mapping[str, Tensor], file: Path) -> Projector | None:
    """The projector among the tensors that an adapter saved whole; None if there is none.

    Args:
        tensors: by the names of the model.
        file: where they came from, for messages.
    """
    found, _ = _matching(tensors, tensors.__getitem__)
    return Projector(found, None, file) if found else None


def projector_beside(adapter_folder: Path) -> Path | None:
    """The projector file of the run that an adapter folder lies in, if there is one."""
    file = adapter_folder.resolve().parent / RUN_FILE
    return file if file.is_file() else None


def new_projector(vision_size: int, text_size: int, seed: int) -> Projector:
    """An untrained projector, drawn as torch draws linear layers, which is how XTuner and LLaVA begin."""
    draw = torch.Generator().manual_seed(seed)
    tensors = {}
    for number, inputs in ((1, vision_size), (2, text_size)):
        bound = inputs**-0.5
        tensors[f"linear_{number}.weight"] = torch.empty(text_size, inputs).uniform_(-bound, bound, generator=draw)
        tensors[f"linear_{number}.bias"] = torch.empty(text_size).uniform_(-bound, bound, generator=draw)
    return Projector(tensors, None, Path("untrained"))


def _matching(keys: Iterable[str], load: Callable[[str], Tensor]) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a projector by their part, and keys that belong to no projector of two layers."""
    found, odd = {}, []
    for key in keys:
        if (match := _KEY.fullmatch(key)) is None:
            continue
        number = match["ours"] or {"0": "1", "2": "2"}.get(match["theirs"] or match["xtuner"])
        part = f"linear_{number}.{match['part'] or match['xtuner_part']}"
        if part in PARTS:
            found[part] = load(key)
        else:
            odd.append(key)
    return found, odd


def _open(path: Path, allow_pickle: bool) -> tuple[Iterable[str], Callable[[str], Tensor], Path]:
    """Keys, how to get one, and the file for messages."""
    if path.is_dir() and weight_files(path):
        folder = Weights(path)
        return folder.places, folder.load, path / "model.safetensors"
    if path.is_dir():
        names = [name for name in (RUN_FILE, *PICKLES) if (path / name).is_file()]
        if not names:
            raise ConfigError(
                f"{path}: found no projector there, expected model.safetensors, {RUN_FILE} or {' or '.join(PICKLES)}."
            )
        path = path / names[0]
    if path.suffix in (".bin", ".pt", ".pth"):
        if not allow_pickle:
            raise CheckpointError(
                f"{path}: found a pickle, which may hold code, expected safetensors. If you trust where it comes from, "
                "allow it with --allow-pickle; only tensors are then read."
            )
        tensors = read_pickle(path)
        return tensors, tensors.__getitem__, path
    read_header(path)  # says what is wrong with the file
    from safetensors.torch import load_file

    tensors = load_file(path)
    return tensors, tensors.__getitem__, path


def _activation(folder: Path) -> str | None:
    """What the config beside the weights names, of XTuner's projector or of transformers' LLaVA."""
    if not (folder / "config.json").is_file():
        return None
    config = read_json(folder / "config.json")
    depth = config.get("depth", 2)
    if config.get("model_type") == "projector" and depth != 2:
        raise CheckpointError(f"{folder}: the projector has {depth} linear layers, expected 2, as LLaVA 1.5 has.")
    name = config.get("projector_hidden_act") or (config.get("hidden_act") if "depth" in config else None)
    return str(name) if name else None
