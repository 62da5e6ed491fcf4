"""Several adapters of one base model as one MoSLoRA adapter, whose mixers are block diagonal.

    MIXED/adapter_config.json, adapter_model.safetensors   the adapter, as `save_pretrained` writes one
    MIXED/mix.json                                         what it was made of; ranks of the blocks by layer

With the blocks outside the diagonal at zero it computes the weighted sum of the adapters exactly. They are what
`moslora.train_off_diagonal` trains. docs/mixing.md has the derivation.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..adapter import MosLoraConfig
from ..equation import block_diagonal_mixer, stacked_rows
from ..errors import CheckpointError, ConfigError
from .addable import base_shape, common_base, common_tensors, refuse_what_does_not_add_up
from .export import compare, tolerance
from .files import new_path, read_json, refuse_existing, write_json, write_safetensors
from .layers import Adapter, Layer, Products, commonest
from .load import EMBEDDING, PREFIX, PROJECTION, WEIGHTS, load_adapter

RECORD = "mix.json"


@dataclass(frozen=True)
class MixReport:
    """What `mix_adapters` has written, and how exactly.

    Attributes:
        out: folder.
        ranks: layer -> the rank that each adapter has in it; 0 where it has none.
        differences: layer -> |delta W of the file - weighted sum of delta W| / |weighted sum|, Frobenius.
    """

    out: Path
    ranks: dict[str, list[int]]
    differences: dict[str, float]

    @property
    def largest(self) -> tuple[str, float]:
        """The layer that differs most, and by how much."""
        return max(self.differences.items(), key=lambda item: item[1])


@dataclass(frozen=True)
class WeightedSum:
    """One layer of several adapters: `delta W = sum of weight * delta W of the adapter`.

    Attributes:
        parts: weight and layer of each adapter that has this layer.
    """

    parts: list[tuple[float, Layer]]

    @property
    def groups(self) -> int:
        """Of a convolution; 1 for other layers."""
        layer = self.parts[0][1]
        return layer.r // layer.B.shape[1] if layer.B.ndim > 2 else 1

    def products(self) -> Products:
        """delta W in float64, from the layers as they are."""
        scaled = [[(weight * B, A) for B, A in layer.products()] for weight, layer in self.parts]
        return [
            (torch.cat([B for B, _ in same], 1), torch.cat([A for _, A in same], 0))
            for same in zip(*scaled, strict=True)
        ]

    def mixed(self) -> Layer:
        """One layer with all ranks. Scales and weights go into the mixer, so its own scale is 1.

        The factors keep their dtype but have at least float32, so that only the mixer is rounded.
        """
        layers = [layer.folded(torch.float64) if layer.mixer == "core" else layer for _, layer in self.parts]
        blocks = [
            weight * layer.scale * layer.full_mixer() for (weight, _), layer in zip(self.parts, layers, strict=True)
        ]
        order = stacked_rows([layer.r for layer in layers], self.groups)
        dtype = torch.float32
        for _, layer in self.parts:
            dtype = torch.promote_types(dtype, layer.A.dtype)
        return Layer(
            name=layers[0].name,
            A=torch.cat([layer.A.double() for layer in layers])[order].to(dtype),
            B=torch.cat([layer.B.double() for layer in layers], 1).to(dtype),
            M=block_diagonal_mixer(blocks, self.groups).to(dtype),
            mixer="learnable",
            r=len(order),
            scale=1.0,
            is_embedding=layers[0].is_embedding,
        )


def mix_adapters(
    folders: Sequence[str | Path], out: str | Path, *, weights: Sequence[float] = (), base: str | None = None
) -> MixReport:
    """Write the one MoSLoRA adapter that computes the weighted sum of several adapters.

    In each layer A is stacked, B stands side by side, and M is block diagonal, at the sum of the ranks. The result is
    read back, and delta W of each layer compared with the sum, before it gets its name.

    Args:
        folders: MoSLoRA or LoRA adapters of one base model, as `save_pretrained` writes them; at least two.
        out: a new folder.
        weights: of the adapters, finite; all 1 when empty.
        base: name of the base model, where the configs name it differently and all the same mean one model.

    Returns:
        ranks and differences, layer by layer.

    Raises:
        CheckpointError: an adapter is damaged, or the result, read back, differs by more than one rounding.
        ConfigError: `out` exists, the weights do not fit, or the adapters belong to different base models.
        UnsupportedError: the sum of these adapters is no sum of low-rank updates, with the reasons.
    """
    out = Path(out)
    refuse_existing(out)
    weights = _checked_weights(folders, weights)
    adapters = [load_adapter(folder) for folder in folders]
    refuse_what_does_not_add_up(adapters)
    base = common_base(adapters, base)
    sums = _sums(adapters, weights)
    mixed = {name: each.mixed() for name, each in sums.items()}
    ranks = {name: [each.layers[name].r if name in each.layers else 0 for each in adapters] for name in sums}
    with new_path(out) as partial:
        partial.mkdir()
        _config(adapters, mixed, base).save_pretrained(partial)
        write_safetensors(
            partial / WEIGHTS,
            {f"{PREFIX}{key}": tensor for key, tensor in _tensors(mixed, common_tensors(adapters)).items()},
        )
        made_of = [
            {"folder": str(folder), "sha256": _sha256(adapter.file), "weight": weight}
            for folder, adapter, weight in zip(folders, adapters, weights, strict=True)
        ]
        write_json(partial / RECORD, {"adapters": made_of, "ranks": ranks})
        found = {name: layer.products() for name, layer in load_adapter(partial).layers.items()}
        report = MixReport(out, ranks, compare(found, sums))
        _refuse_inexact(report, max(tolerance(layer.A.dtype) for layer in mixed.values()))
    return report


def read_ranks(folder: str | Path) -> dict[str, list[int]]:
    """Layer -> ranks of the blocks of its mixer, of an adapter that `mix_adapters` has written.

    Raises:
        CheckpointError: the folder has no mix.json, or a damaged one.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        raise CheckpointError(
            f"{folder}: found no {RECORD}, which says where the blocks of the mixers are. Expected a folder that "
            "`moslora mix` has written."
        )
    ranks = read_json(path).get("ranks")
    if not isinstance(ranks, dict) or not ranks:
        raise CheckpointError(f"{path}: ranks: found {ranks!r}, expected layers and their ranks: the file is damaged.")
    return ranks


def _checked_weights(folders: Sequence[Any], weights: Sequence[float]) -> list[float]:
    if len(folders) < 2:
        raise ConfigError(f"Found {len(folders)} adapter(s), expected at least two to mix.")
    weights = list(weights) or [1.0] * len(folders)
    if len(weights) != len(folders) or not all(map(isfinite, weights)):
        raise ConfigError(
            f"Found the weights {', '.join(map(str, weights))} for {len(folders)} adapters, expected one finite number "
            "for each, in the same order."
        )
    return weights


def _sums(adapters: Sequence[Adapter], weights: Sequence[float]) -> dict[str, WeightedSum]:
    """Every layer of any adapter.

    Raises:
        ConfigError: two adapters have layers of one name and different shapes.
    """
    pairs = list(zip(adapters, weights, strict=True))
    names = sorted({name for adapter in adapters for name in adapter.layers})
    sums = {}
    for name in names:
        parts = [(weight, adapter.layers[name]) for adapter, weight in pairs if name in adapter.layers]
        shapes = {base_shape(layer) for _, layer in parts}
        if len(shapes) > 1:
            found = " and ".join(map(str, sorted(shapes)))
            raise ConfigError(f"{name}: the adapters fit layers of the shapes {found}: their base models differ.")
        sums[name] = WeightedSum(parts)
    return sums


def _config(adapters: Sequence[Adapter], mixed: Mapping[str, Layer], base: str | None) -> MosLoraConfig:
    first = adapters[0].config
    outer = {name.partition(".base_layer.")[0]: layer.r for name, layer in mixed.items()}
    r = commonest(outer.values())
    # `^`, since PEFT would also find the end of another layer's name.
    patterns = {f"^{name}": rank for name, rank in outer.items() if rank != r}
    return MosLoraConfig(
        r=r,
        lora_alpha=r,
        rank_pattern=dict(patterns),
        alpha_pattern=dict(patterns),
        target_modules=sorted(outer),
        init_mixer="identity",
        fan_in_fan_out=any(adapter.config.get("fan_in_fan_out") for adapter in adapters),
        lora_dropout=first.get("lora_dropout") or 0.0,
        base_model_name_or_path=base,
        task_type=first.get("task_type"),
        auto_mapping=first.get("auto_mapping"),
        inference_mode=True,
    )


def _tensors(layers: Mapping[str, Layer], others: Mapping[str, Tensor]) -> dict[str, Tensor]:
    tensors = dict(others)
    for name, layer in layers.items():
        assert layer.M is not None
        _, A, M, B = EMBEDDING if layer.is_embedding else PROJECTION
        tensors |= {f"{name}.{A}": layer.A, f"{name}.{M}": layer.M, f"{name}.{B}": layer.B}
    return tensors


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _refuse_inexact(report: MixReport, allowed: float) -> None:
    name, worst = report.largest
    if not worst <= allowed:
        raise CheckpointError(
            f"{name}: delta W of the mixed adapter, read back, differs by {worst:.1e} from the weighted sum, expected "
            f"at most {allowed:.1e}. Nothing was written. If the adapters cancel one another there, the rest "
            "is lost in rounding: choose other weights."
        )
