"""Write the base model with an adapter merged into its weights.

    moslora merge runs/moslora/adapter merged --base meta-llama/Meta-Llama-3-8B-Instruct

Writes a full model folder, with the tokenizer of the base, which transformers, vLLM or a converter reads without PEFT.
An existing OUT is never overwritten.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora merge`."""

    adapter: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ADAPTER")]
    """Folder with adapter_config.json and adapter_model.safetensors."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """New folder."""
    base: str | None = None
    """Folder or hub id of the base model; what the adapter names if left out."""

    def run(self) -> None:
        """Merge and say how to load the result."""
        from ..checkpoint import merge_adapter

        name = merge_adapter(self.adapter, self.out, base=self.base)
        print(f"{self.out}: merged model")
        print(f'next: model = transformers.{name}.from_pretrained("{self.out}")')
