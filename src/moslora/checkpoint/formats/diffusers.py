"""diffusers' folder: pytorch_lora_weights.safetensors, with the settings of the LoRA in the header of the file.

Without that header diffusers takes alpha = rank, and rank and alpha patterns are lost.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch

from ..components import split_components
from ..files import read_safetensors, write_safetensors
from ..layers import Adapter, Layer, Products, commonest
from ..load import build_adapter
from . import refuse_what_is_lost

FILE = "pytorch_lora_weights.safetensors"
HEADER = "lora_adapter_metadata"

Value = TypeVar("Value")


class DiffusersFormat:
    """Holds linear layers and convolutions of one or several parts of a pipeline."""

    dtype: torch.dtype | None = None

    def __init__(self, component: str | None) -> None:
        self.component = component

    def check(self, adapter: Adapter) -> None:
        """Raise UnsupportedError for anything but linear layers and convolutions."""
        refuse_what_is_lost(adapter, "diffusers", convolutions=True)
        split_components(adapter.layers, self.component)

    def write(self, adapter: Adapter, out: Path) -> None:
        """Write the folder of an adapter without mixers."""
        out.mkdir()
        header: dict[str, Any] = {}
        tensors: dict[str, torch.Tensor] = {}
        for component, layers in self._parts(adapter).items():
            # transformers 5 has no `text_model` in the names of a text encoder; without it they fit both.
            ranks = {name.removeprefix("text_model."): (each.r, each.alpha) for name, (_, each) in layers.items()}
            header |= {f"{component}.{key}": value for key, value in plain_settings(ranks).items()}
            for name, (_, layer) in layers.items():
                tensors[f"{component}.{name}.lora_A.weight"] = layer.A
                tensors[f"{component}.{name}.lora_B.weight"] = layer.B
        write_safetensors(out / FILE, tensors, {HEADER: json.dumps(header, indent=2, sort_keys=True)})

    def read(self, out: Path, adapter: Adapter) -> dict[str, Products]:
        """delta W of each layer, from the tensors and the header of the file."""
        tensors, metadata = read_safetensors(out / FILE)
        header = json.loads(metadata[HEADER])
        products: dict[str, Products] = {}
        for component, layers in self._parts(adapter).items():
            config = _under(component, header)
            found = build_adapter(out / FILE, {**config, "peft_type": "LORA"}, _under(component, tensors))
            full_names = {name: full_name for name, (full_name, _) in layers.items()}
            products |= {full_names.get(name, name): layer.products() for name, layer in found.layers.items()}
        return products

    def next_step(self, out: Path) -> str:
        """How to load the result."""
        return f'pipeline.load_lora_weights("{out}")'

    def _parts(self, adapter: Adapter) -> dict[str, dict[str, tuple[str, Layer]]]:
        """Part of the pipeline -> name of a layer there -> its name in the adapter, and the layer."""
        found: dict[str, dict[str, tuple[str, Layer]]] = {}
        for full_name, (component, name) in split_components(adapter.layers, self.component).items():
            found.setdefault(component, {})[name] = (full_name, adapter.layers[full_name])
        return found


def _under(component: str, values: Mapping[str, Value]) -> dict[str, Value]:
    """The values whose keys begin with a part of the pipeline, without that beginning."""
    start = f"{component}."
    return {key.removeprefix(start): value for key, value in values.items() if key.startswith(start)}


def plain_settings(layers: Mapping[str, tuple[int, float]]) -> dict[str, Any]:
    """Settings of PEFT that give each layer its rank and alpha. Older versions of PEFT would refuse newer settings.

    Args:
        layers: name -> rank and alpha, for a scale of alpha / rank.
    """
    r, alpha = commonest(r for r, _ in layers.values()), commonest(alpha for _, alpha in layers.values())
    return {
        "r": r,
        "lora_alpha": alpha,
        "rank_pattern": {name: rank for name, (rank, _) in layers.items() if rank != r},
        "alpha_pattern": {name: value for name, (_, value) in layers.items() if value != alpha},
        "target_modules": sorted(layers),
    }
