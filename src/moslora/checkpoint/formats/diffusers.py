"""diffusers' folder: pytorch_lora_weights.safetensors, with the settings of the LoRA in the header of the file.

Without that header diffusers takes alpha = rank, and rank and alpha patterns are lost.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import torch

from ...errors import ConfigError
from ..files import read_safetensors, write_safetensors
from ..layers import Adapter, Products, commonest
from ..load import build_adapter
from . import refuse_what_is_lost

FILE = "pytorch_lora_weights.safetensors"
HEADER = "lora_adapter_metadata"
COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2")


class DiffusersFormat:
    """Holds linear layers and convolutions of one part of a pipeline."""

    dtype: torch.dtype | None = None

    def __init__(self, component: str | None) -> None:
        self.component = component

    def check(self, adapter: Adapter) -> None:
        """Raise UnsupportedError for anything but linear layers and convolutions."""
        refuse_what_is_lost(adapter, "diffusers", convolutions=True)
        find_component(adapter.layers, self.component)

    def write(self, adapter: Adapter, out: Path) -> None:
        """Write the folder of an adapter without mixers."""
        out.mkdir()
        component = find_component(adapter.layers, self.component)
        # transformers 5 has no `text_model` in the names of a text encoder; without it they fit both.
        named = {name.removeprefix("text_model."): layer for name, layer in adapter.layers.items()}
        settings = plain_settings({name: (layer.r, layer.alpha) for name, layer in named.items()})
        header = {f"{component}.{key}": value for key, value in settings.items()}
        tensors = {}
        for name, layer in adapter.layers.items():
            tensors[f"{component}.{name}.lora_A.weight"] = layer.A
            tensors[f"{component}.{name}.lora_B.weight"] = layer.B
        write_safetensors(out / FILE, tensors, {HEADER: json.dumps(header, indent=2, sort_keys=True)})

    def read(self, out: Path, adapter: Adapter) -> dict[str, Products]:
        """delta W of each layer, from the tensors and the header of the file."""
        tensors, metadata = read_safetensors(out / FILE)
        component = find_component(adapter.layers, self.component)
        config = {key.removeprefix(f"{component}."): value for key, value in json.loads(metadata[HEADER]).items()}
        plain = {key.removeprefix(f"{component}."): tensor for key, tensor in tensors.items()}
        found = build_adapter(out / FILE, {**config, "peft_type": "LORA"}, plain)
        return {name: layer.products() for name, layer in found.layers.items()}

    def next_step(self, out: Path) -> str:
        """How to load the result."""
        return f'pipeline.load_lora_weights("{out}")'


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


def find_component(names: Iterable[str], component: str | None) -> str:
    """The part of the pipeline that layers of these names belong to.

    Args:
        names: of the adapted layers.
        component: what the user says it is; None to recognise a unet or transformer. Text encoders look alike.

    Raises:
        ConfigError: it is unknown or cannot be recognised.
    """
    if component is None:
        firsts = {name.partition(".")[0] for name in names}
        if firsts & {"down_blocks", "mid_block", "up_blocks"}:
            component = "unet"
        elif firsts & {"transformer_blocks", "single_transformer_blocks"}:
            component = "transformer"
    if component not in COMPONENTS:
        raise ConfigError(
            f"Found component {component!r} for layers such as {min(names)}: say which part of the pipeline was "
            f"adapted with --component {{{','.join(COMPONENTS)}}}."
        )
    return component
