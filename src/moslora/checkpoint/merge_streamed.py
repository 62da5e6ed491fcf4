"""A merge from file to file: the base's files are copied, and the tensors that change are written over.

Memory for one tensor is enough, and names, order and dtypes in the files are those of the base.
"""

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ..errors import UnsupportedError
from .base import Base
from .formats import BEYOND_PLAIN, PLAIN_INITS
from .layers import Adapter, Layer
from .progress import track
from .quantized import Quantization
from .rounding import exact_blocks, roundings
from .shards import Place, Weights, overwrite


@dataclass(frozen=True)
class Change:
    """What becomes of one tensor of the base.

    Attributes:
        key: in the files.
        layer: whose delta W is added; None for none.
        tensor: that takes its place; None for none.
        quantization: through which the base's values go first; None for none.
    """

    key: str
    layer: Layer | None = None
    tensor: Tensor | None = None
    quantization: Quantization | None = None

    def start(self, base: Weights) -> Tensor:
        """What the update is added to."""
        weight = base.load(self.key) if self.tensor is None else self.tensor
        return weight if self.quantization is None else self.quantization.dequantized(weight)


@dataclass(frozen=True)
class StreamedMerge:
    """A merge that needs no model in memory.

    Attributes:
        base: into which.
        changes: all tensors that do not stay as they are.
    """

    base: Base
    changes: list[Change]

    @classmethod
    def of(
        cls, adapter: Adapter, base: Base, trained: dict[str, Tensor], quantization: Quantization | None
    ) -> "StreamedMerge | None":
        """The merge of an adapter, or None if it is more than updates of linear layers, each a tensor on the disk.

        Args:
            adapter: of any kind.
            base: into which.
            trained: name in the model -> tensor that takes the place of the base's.
            quantization: of the base in training, if the dequantised weights are wanted.
        """
        names = base.names_on_disk()
        whole = adapter.others | trained
        weights = {f"{name}.weight": layer for name, layer in adapter.layers.items()}
        if not _is_plain(adapter, base) or not (weights.keys() | whole.keys()) <= names.keys():
            return None
        shapes = {name: tuple(tensor.shape) for name, tensor in base.skeleton.state_dict().items()}
        fits = all(shapes[name] == (len(layer.B), layer.A.shape[1]) for name, layer in weights.items())
        if not fits or any(shapes[name] != tuple(tensor.shape) for name, tensor in whole.items()):
            return None
        changes = {name: Change(names[name], layer=layer) for name, layer in weights.items()}
        for layer_name in sorted(quantization.layers(base.skeleton)) if quantization else []:
            name = f"{layer_name}.weight"
            if name not in names:
                return None
            changes[name] = replace(changes.get(name, Change(names[name])), quantization=quantization)
        for name, tensor in whole.items():
            changes[name] = replace(changes.get(name, Change(names[name])), tensor=tensor)
        return cls(base, list(changes.values()))

    @property
    def counts(self) -> tuple[int, int, int]:
        """Tensors that are updated, replaced and dequantised."""
        updated = sum(change.layer is not None for change in self.changes)
        replaced = sum(change.tensor is not None for change in self.changes)
        return updated, replaced, sum(change.quantization is not None for change in self.changes)

    def write(self, out: Path) -> dict[str, float]:
        """Write config and weights; returns for each changed tensor how far it is from what it should be, in roundings.

        Args:
            out: an empty folder.
        """
        self.base.copy_weights(out)
        before, after = Weights(self.base.folder), Weights(out)
        differences = {}
        for change in track(self.changes, len(self.changes), "merge"):
            place = after.places[change.key]
            start = change.start(before)
            merged = torch.empty(place.shape, dtype=place.dtype)
            for rows, exact in exact_blocks(start, change.layer):
                merged[rows] = exact.to(place.dtype)
            _check_range(change.key, merged, place)
            overwrite(place, merged)
            del merged
            differences[change.key] = _difference(after.load(change.key), start, change.layer)
        return differences


def _difference(written: Tensor, start: Tensor, layer: Layer | None) -> float:
    """Of a tensor that was read back, in roundings."""
    return max((roundings(written[rows], exact) for rows, exact in exact_blocks(start, layer)), default=0.0)


def _check_range(key: str, merged: Tensor, place: Place) -> None:
    if not torch.isfinite(merged).all():
        raise UnsupportedError(
            f"{key}: W + delta W is above the largest number of {place.dtype}, in which {place.file.name} has it: give "
            "a base in bfloat16 or float32."
        )


def _is_plain(adapter: Adapter, base: Base) -> bool:
    """Whether delta W of linear layers and whole tensors are all that the adapter does."""
    config = adapter.config
    if any(config.get(key) for key in (*BEYOND_PLAIN, "target_parameters", "trainable_token_indices")):
        return False
    if config.get("init_lora_weights") not in PLAIN_INITS:
        return False
    embeddings = ("embed_tokens.weight", "lm_head.weight")
    if base.skeleton.config.tie_word_embeddings and any(key.endswith(embeddings) for key in adapter.others):
        return False
    modules = dict(base.skeleton.named_modules())
    return all(
        type(modules.get(name)) is nn.Linear and layer.experts == 1 and not layer.extras and not layer.is_embedding
        for name, layer in adapter.layers.items()
    )
