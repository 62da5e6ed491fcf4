"""Plain LoRA as stock PEFT saves it: a folder with adapter_config.json and adapter_model.safetensors."""

from pathlib import Path

import torch

from ...errors import CheckpointError
from ..files import write_json, write_safetensors
from ..layers import Adapter, Products
from ..load import CONFIG, EMBEDDING, PREFIX, PROJECTION, WEIGHTS, load_adapter


class PeftFormat:
    """Holds everything that PEFT knows: DoRA's magnitude, biases, modules_to_save, experts, embeddings."""

    dtype: torch.dtype | None = None

    def check(self, adapter: Adapter) -> None:
        """Nothing is refused."""

    def write(self, adapter: Adapter, out: Path) -> None:
        """Write the folder of an adapter without mixers."""
        out.mkdir()
        tensors = dict(adapter.others)
        for name, layer in adapter.layers.items():
            A, _, _, B = EMBEDDING if layer.is_embedding else PROJECTION
            tensors |= {f"{name}.{part}": value for part, value in {A: layer.A, B: layer.B, **layer.extras}.items()}
        write_safetensors(out / WEIGHTS, {f"{PREFIX}{key}": tensor for key, tensor in tensors.items()})
        write_json(out / CONFIG, adapter.config)

    def read(self, out: Path, adapter: Adapter) -> dict[str, Products]:
        """delta W of each layer, from the files; raises CheckpointError if another tensor was lost."""
        found = load_adapter(out)
        again = found.unmixed_tensors()
        for name, tensor in adapter.unmixed_tensors().items():
            if name not in again or not torch.equal(again[name], tensor):
                raise CheckpointError(f"{out / WEIGHTS}: {name}: found other values than were written.")
        return {name: layer.products() for name, layer in found.layers.items()}

    def next_step(self, out: Path) -> str:
        """How to load the result."""
        return f'model = peft.PeftModel.from_pretrained(base, "{out}")'
