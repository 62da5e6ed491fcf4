"""kohya's file, as ComfyUI, A1111 and diffusers read it: lora_down, lora_up and alpha for each module.

All modules get one alpha, and lora_up absorbs what they differ by: diffusers 0.42 takes the commonest alpha for every
attention layer, whatever the file says.
"""

from pathlib import Path

import torch

from ...errors import CheckpointError, UnsupportedError
from ..components import split_components
from ..files import read_safetensors, write_safetensors
from ..layers import Adapter, Layer, Products
from . import refuse_what_is_lost

PREFIXES = {"unet": "lora_unet", "text_encoder": "lora_te1", "text_encoder_2": "lora_te2"}
DOWN, UP, ALPHA = ".lora_down.weight", ".lora_up.weight", ".alpha"


class KohyaFormat:
    """Holds linear layers and convolutions of a UNet and of text encoders."""

    dtype: torch.dtype | None = None

    def __init__(self, component: str | None) -> None:
        self.component = component

    def check(self, adapter: Adapter) -> None:
        """Raise UnsupportedError for anything but linear layers and convolutions."""
        refuse_what_is_lost(adapter, "kohya", convolutions=True)
        self._names(adapter)

    def write(self, adapter: Adapter, out: Path) -> None:
        """Write the file of an adapter without mixers. delta W is alpha / rank * up @ down."""
        alpha, adapter = adapter.with_one_alpha()
        tensors = {}
        for key, name in self._names(adapter).items():
            layer = adapter.layers[name]
            tensors[key + DOWN], tensors[key + UP] = layer.A, layer.B
            tensors[key + ALPHA] = torch.tensor(alpha, dtype=torch.float32)
        write_safetensors(out, tensors)

    def read(self, out: Path, adapter: Adapter) -> dict[str, Products]:
        """delta W of each layer, from the file."""
        tensors, _ = read_safetensors(out)
        names = self._names(adapter)
        found = {}
        for key in sorted({key.partition(".")[0] for key in tensors}):
            if key not in names:
                raise CheckpointError(f"{out}: {key}: found a layer that was not written.")
            A, B, alpha = (tensors[key + part] for part in (DOWN, UP, ALPHA))
            r = len(A)
            layer = Layer(name=key, A=A, B=B, M=None, mixer="identity", r=r, scale=alpha.item() / r)
            found[names[key]] = layer.products()
        return found

    def next_step(self, out: Path) -> str:
        """How to load the result."""
        return f'pipeline.load_lora_weights("{out}")  # or put the file into the loras folder of ComfyUI or A1111'

    def _names(self, adapter: Adapter) -> dict[str, str]:
        """kohya's name of each module -> its name in the base model."""
        parts = split_components(adapter.layers, self.component)
        components = {component for component, _ in parts.values()}
        if not components <= PREFIXES.keys():
            unknown = min(components - PREFIXES.keys())
            raise UnsupportedError(f"The format kohya has no names for a {unknown}: use --format diffusers.")
        # Stable Diffusion 1 and 2 have one text encoder, whose prefix has no number.
        alone = {"unet", "text_encoder"} == components
        prefixes = {**PREFIXES, "text_encoder": "lora_te"} if alone else PREFIXES
        names: dict[str, str] = {}
        for full_name, (component, name) in parts.items():
            path = name if component == "unet" or name.startswith("text_model.") else f"text_model.{name}"
            key = f"{prefixes[component]}_{path.replace('.', '_')}"
            if key in names:
                raise UnsupportedError(f"{full_name} and {names[key]} have the same name in the format kohya, {key}.")
            names[key] = full_name
        return names
