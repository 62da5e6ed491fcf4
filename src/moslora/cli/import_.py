"""Turn a checkpoint of the authors' code into a MoSLoRA adapter that PEFT loads.

    moslora import trained_models/moslora-llama3 my-adapter
    moslora import lora-trained-xl-mixer-dog my-adapter

SRC is a folder of their PEFT (adapter_config.json beside adapter_model.safetensors or .bin), or what diffusers saved of
it (pytorch_lora_weights.safetensors). A .bin file is a pickle: it is read only with --allow-pickle, and then tensors
only. Writes adapter_config.json and adapter_model.safetensors into the new folder OUT.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora import`."""

    src: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SRC")]
    """Folder or file of the authors' code."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """New folder."""
    allow_pickle: bool = False
    """Read a .bin file, tensors only."""
    component: Literal["unet", "transformer", "text_encoder", "text_encoder_2"] | None = None
    """Which part of a pipeline to take, if the file of diffusers holds several."""

    def run(self) -> None:
        """Import and say how to load the result."""
        from ..checkpoint import import_adapter

        adapter = import_adapter(self.src, self.out, allow_pickle=self.allow_pickle, component=self.component)
        mixed = sum(layer.mixer == "learnable" for layer in adapter.layers.values())
        print(f"{self.out}: MoSLoRA adapter, {len(adapter.layers)} layers, {mixed} of them with a mixer")
        print(f'next: import moslora; model = peft.PeftModel.from_pretrained(base, "{self.out}")')
