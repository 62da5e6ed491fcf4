"""XTuner's folder of a LLaVA model: two plain LoRA of its parts, and the projector.

    OUT/llm_adapter/              of the language model, as AutoModelForCausalLM names its layers
    OUT/visual_encoder_adapter/   of the vision tower, as CLIPVisionModel names its layers
    OUT/projector/                model.safetensors, config.json, and the code with which AutoModel loads it

VLMEvalKit's LLaVA_XTuner loads it through stock PEFT. transformers 5 leaves out the `vision_model.` that transformers 4
puts before the layers of a CLIPVisionModel, and PEFT skips keys with another name with no more than a warning; so the
file of the vision tower has its tensors under both names.
"""

import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError, ConfigError, UnsupportedError
from ..files import read_safetensors, write_json, write_safetensors
from ..layers import Adapter, Layer, Products
from ..load import CONFIG, PREFIX, PROJECTION, WEIGHTS, build_adapter, load_adapter
from ..projectors import MODULE, Projector, projector_beside, projector_of, read_projector
from . import refuse_what_is_lost
from .diffusers import plain_settings

LANGUAGE, VISION, PROJECTOR = "llm_adapter", "visual_encoder_adapter", "projector"
OLD_PREFIX = "vision_model."  # of transformers 4
CODE = Path(__file__).parent / "xtuner_projector"
SEQUENTIAL = {"linear_1": "model.0", "linear_2": "model.2"}

_LANGUAGE_NAME = re.compile(r"(?:model\.)?language_model\.(?:model\.)?(?P<inner>.*)")
_VISION_NAME = re.compile(r"(?:model\.)?vision_tower\.(?:vision_model\.)?(?P<inner>.*)")


class XtunerFormat:
    """Holds linear layers of the language model and of the vision tower, and the projector."""

    dtype: torch.dtype | None = None

    def __init__(self, base: str | Path | None) -> None:
        self.base = base

    def check(self, adapter: Adapter) -> None:
        """Raise UnsupportedError for layers of other parts of a model, and ConfigError if there is no projector."""
        projector = {key for key in adapter.others if f"{MODULE}." in key}
        refuse_what_is_lost(adapter, "xtuner", unchanged=projector)
        self._parts(adapter)
        self._projector(adapter)

    def write(self, adapter: Adapter, out: Path) -> None:
        """Write the folder of an adapter without mixers."""
        out.mkdir()
        for part, layers in self._parts(adapter).items():
            if layers:
                _write_adapter(out / part, part, layers)
        _write_projector(out / PROJECTOR, self._projector(adapter))

    def read(self, out: Path, adapter: Adapter) -> dict[str, Products]:
        """delta W of each layer, from the files; raises CheckpointError if the projector differs."""
        found: dict[str, Products] = {}
        for part, layers in self._parts(adapter).items():
            written = _read_adapter(out / part, part) if layers else {}
            if written.keys() != layers.keys():
                raise CheckpointError(f"{out / part}: found {len(written)} layers, {len(layers)} were written.")
            found |= {layers[name].name: layer.products() for name, layer in written.items()}
        expected, again = self._projector(adapter), read_projector(out / PROJECTOR)
        if any(not torch.equal(again.tensors[part], tensor) for part, tensor in expected.tensors.items()):
            raise CheckpointError(f"{out / PROJECTOR}: found another projector than was written.")
        return found

    def next_step(self, out: Path) -> str:
        """How VLMEvalKit loads the result."""
        return f'LLaVA_XTuner(llava_path="{out}", llm_path=LLM, visual_encoder_path=CLIP)  # a model of VLMEvalKit'

    def _parts(self, adapter: Adapter) -> dict[str, dict[str, Layer]]:
        """Folder -> the name of a layer in its own model -> the layer."""
        parts: dict[str, dict[str, Layer]] = {LANGUAGE: {}, VISION: {}}
        for name, layer in adapter.layers.items():
            if name == "lm_head" or name.endswith("language_model.lm_head"):
                parts[LANGUAGE]["lm_head"] = layer
            elif match := _LANGUAGE_NAME.fullmatch(name):
                parts[LANGUAGE][f"model.{match['inner']}"] = layer
            elif match := _VISION_NAME.fullmatch(name):
                parts[VISION][match["inner"]] = layer
            else:
                raise UnsupportedError(
                    f"{adapter.file}: {name}: the format xtuner holds layers of language_model and vision_tower of a "
                    "LLaVA model. Use --format peft, or `moslora merge`."
                )
        return parts

    def _projector(self, adapter: Adapter) -> Projector:
        """The trained one of the run, else that of the base."""
        folder = adapter.file.parent
        if file := projector_beside(folder):
            found = read_projector(file)
        elif trained := projector_of(adapter.others, adapter.file):
            found = trained
        elif self.base and Path(self.base).is_dir():
            return read_projector(self.base)
        else:
            raise ConfigError(
                f"{folder} holds no projector, and {self.base or 'nothing'} is no folder of a base model from which to "
                "take it: give the LLaVA folder that was trained with --base."
            )
        if self.base and Path(self.base).is_dir():  # whose config names the activation
            found = replace(found, activation=read_projector(self.base).activation)
        return found


def _write_adapter(folder: Path, part: str, layers: dict[str, Layer]) -> None:
    folder.mkdir()
    A_key, _, _, B_key = PROJECTION
    tensors: dict[str, Tensor] = {}
    for name, layer in layers.items():
        for prefix in (PREFIX, PREFIX + OLD_PREFIX) if part == VISION else (PREFIX,):
            tensors |= {f"{prefix}{name}.{A_key}": layer.A, f"{prefix}{name}.{B_key}": layer.B}
    write_safetensors(folder / WEIGHTS, tensors)
    settings: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM" if part == LANGUAGE else None,
        "base_model_name_or_path": None,  # the client is told where it is
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
        **plain_settings({name: (layer.r, layer.alpha) for name, layer in layers.items()}),
    }
    write_json(folder / CONFIG, settings)


def _read_adapter(folder: Path, part: str) -> dict[str, Layer]:
    if part != VISION:
        return load_adapter(folder).layers
    tensors, _ = read_safetensors(folder / WEIGHTS)
    old = {key: tensor for key, tensor in tensors.items() if key.startswith(PREFIX + OLD_PREFIX)}
    new = {key: tensor for key, tensor in tensors.items() if key not in old}
    if any(not torch.equal(old[key.replace(PREFIX, PREFIX + OLD_PREFIX)], tensor) for key, tensor in new.items()):
        raise CheckpointError(f"{folder}: the tensors under the two names differ.")
    config = load_adapter(folder).config
    return build_adapter(folder / WEIGHTS, config, new).layers


def _write_projector(folder: Path, projector: Projector) -> None:
    folder.mkdir()
    weight = projector.tensors["linear_1.weight"]
    names = {part: f"{SEQUENTIAL[part[:8]]}{part[8:]}" for part in projector.tensors}
    write_safetensors(folder / "model.safetensors", {names[part]: t for part, t in projector.tensors.items()})
    code = {"AutoConfig": "configuration_projector.ProjectorConfig", "AutoModel": "modeling_projector.ProjectorModel"}
    settings: dict[str, Any] = {
        "model_type": "projector",
        "architectures": ["ProjectorModel"],
        "auto_map": code,
        "visual_hidden_size": weight.shape[1],
        "llm_hidden_size": weight.shape[0],
        "depth": 2,
        "hidden_act": projector.activation or "gelu",
        "bias": "linear_1.bias" in projector.tensors,
        "torch_dtype": str(weight.dtype).removeprefix("torch."),
    }
    write_json(folder / "config.json", settings)
    for name in ("configuration_projector.py", "modeling_projector.py"):
        shutil.copyfile(CODE / name, folder / name)
