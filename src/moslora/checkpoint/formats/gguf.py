"""llama.cpp's adapter file, by the conventions of its convert_lora_to_gguf.py, always in float32.

The base model's config.json says which architecture's tensor names to use. llama.cpp scales every layer by
`alpha / its rank` with one alpha for the file, so B absorbs what the layers differ by.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...errors import CheckpointError, ConfigError, UnsupportedError
from ..files import check_finite
from ..layers import Adapter, Layer, Products
from . import refuse_what_is_lost

# transformers' model_type -> the architecture's name in the package gguf.
ARCHITECTURES = {
    "llama": "LLAMA",
    "mistral": "LLAMA",
    "mixtral": "LLAMA",
    "qwen2": "QWEN2",
    "qwen3": "QWEN3",
    "gemma": "GEMMA",
    "gemma2": "GEMMA2",
    "gemma3_text": "GEMMA3",
    "phi3": "PHI3",
}
EMBEDDING, OUTPUT = "token_embd.weight", "output.weight"


class GgufFormat:
    """Holds linear layers and the token embedding of language models that llama.cpp knows."""

    dtype: torch.dtype | None = torch.float32

    def __init__(self, base: str | Path | None) -> None:
        try:
            import gguf
        except ImportError:
            raise ConfigError("The format gguf needs the package gguf: pip install 'moslora[gguf]'") from None
        self.gguf: Any = gguf
        self.base = _base_config(base)
        kind = self.base.get("model_type")
        if kind not in ARCHITECTURES:
            raise UnsupportedError(
                f"The base model's type is {kind}; adapters for llama.cpp are known for {', '.join(ARCHITECTURES)}. "
                "Merge it and convert the whole model instead: moslora merge ADAPTER OUT"
            )
        self.architecture = getattr(gguf.MODEL_ARCH, ARCHITECTURES[kind])
        self.is_permuted = ARCHITECTURES[kind] == "LLAMA"

    def check(self, adapter: Adapter) -> None:
        """Raise UnsupportedError for anything that has no tensor of its own in llama.cpp."""
        # PEFT saves the frozen weight of an adapted embedding too; it is the base model's, unless words were added.
        frozen = {f"{name}.base_layer.weight" for name in adapter.layers}
        copies = {
            key for key, value in adapter.others.items() if key in frozen and len(value) == self.base["vocab_size"]
        }
        refuse_what_is_lost(adapter, "gguf", embeddings=True, unchanged=copies)
        self._names(adapter)

    def write(self, adapter: Adapter, out: Path) -> None:
        """Write the file of an adapter without mixers."""
        alpha, adapter = adapter.with_one_alpha()
        writer = self.gguf.GGUFWriter(out, self.gguf.MODEL_ARCH_NAMES[self.architecture])
        writer.add_type(self.gguf.GGUFType.ADAPTER)
        writer.add_string(self.gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(self.gguf.Keys.Adapter.LORA_ALPHA, alpha)
        for tensor_name, name in self._names(adapter).items():
            layer = adapter.layers[name]
            A = layer.A.T if tensor_name == EMBEDDING else layer.A
            for part, tensor in (("lora_a", A), ("lora_b", self._rows(name, layer.B, permute))):
                writer.add_tensor(f"{tensor_name}.{part}", tensor.contiguous().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()

    def read(self, out: Path, adapter: Adapter) -> dict[str, Products]:
        """delta W of each layer, from the file."""
        reader = self.gguf.GGUFReader(out)
        alpha = float(reader.get_field(self.gguf.Keys.Adapter.LORA_ALPHA).contents())
        tensors = {tensor.name: torch.tensor(tensor.data) for tensor in reader.tensors}
        names = self._names(adapter)
        found = {}
        for tensor_name in sorted({name.rpartition(".")[0] for name in tensors}):
            if tensor_name not in names:
                raise CheckpointError(f"{out}: {tensor_name}: found a layer that was not written.")
            A, B = (tensors[f"{tensor_name}.{part}"] for part in ("lora_a", "lora_b"))
            check_finite(out, tensor_name, B)
            A = A.T if tensor_name == EMBEDDING else A
            B = self._rows(names[tensor_name], B, unpermute)
            layer = Layer(name=tensor_name, A=A, B=B, M=None, mixer="identity", r=len(A), scale=alpha / len(A))
            found[names[tensor_name]] = layer.products()
        return found

    def next_step(self, out: Path) -> str:
        """How to load the result."""
        return f"llama-cli --model BASE.gguf --lora {out}"

    def _rows(self, name: str, B: Tensor, change: Callable[[Tensor, int], Tensor]) -> Tensor:
        """B with its rows in another order, where llama.cpp has the heads of queries and keys in another order."""
        heads = int(self.base["num_attention_heads"])
        if self.is_permuted and name.endswith("q_proj"):
            return change(B, heads)
        if self.is_permuted and name.endswith("k_proj"):
            return change(B, int(self.base.get("num_key_value_heads") or heads))
        return B

    def _names(self, adapter: Adapter) -> dict[str, str]:
        """llama.cpp's name of each tensor -> the module's name in the base model."""
        # One tensor for both: llama.cpp would apply the update of either to the other, or stop.
        refused = {None, EMBEDDING, OUTPUT} if self.base.get("tie_word_embeddings") else {None}
        known = self.gguf.get_tensor_name_map(self.architecture, int(self.base["num_hidden_layers"]))
        names = {}
        for name in adapter.layers:
            text_name = name.replace("language_model.model.", "model.").replace("model.language_model.", "model.")
            tensor_name = known.get_name(f"{text_name}.weight", try_suffixes=(".weight",))
            if tensor_name in refused or adapter.layers[name].is_embedding != (tensor_name == EMBEDDING):
                raise UnsupportedError(
                    f"{name}: llama.cpp has no tensor of its own for this layer of a {self.base['model_type']}: "
                    "use --format peft, or `moslora merge`."
                )
            names[tensor_name] = name
        return names


def permute(rows: Tensor, heads: int) -> Tensor:
    """Rows of a query or key projection from transformers' order to llama.cpp's.

    transformers rotates row i of a head together with row i + half, llama.cpp two neighbours.

    Args:
        rows: (heads * head size, n).
        heads: number of heads.
    """
    return rows.unflatten(0, (heads, 2, -1)).transpose(1, 2).reshape(rows.shape)


def unpermute(rows: Tensor, heads: int) -> Tensor:
    """The inverse of `permute`."""
    return rows.unflatten(0, (heads, -1, 2)).transpose(1, 2).reshape(rows.shape)


def _base_config(base: str | Path | None) -> dict[str, Any]:
    if not base:
        raise ConfigError(
            "The format gguf needs the base model's config.json, and the adapter names no base model: give --base."
        )
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(base).get_text_config().to_dict()
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"Found no config.json of {base} ({reason}): give --base FOLDER.") from None
