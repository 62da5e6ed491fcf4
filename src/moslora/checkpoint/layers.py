"""An adapter in memory: its config, and for every layer raw A, M and B."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from peft import LoraConfig
from torch import Tensor

from ..adapter import MosLoraConfig
from ..equation import Mixer, butterfly_mixer, fold, fold_core
from ..errors import UnsupportedError

Value = TypeVar("Value")

# delta W as products B @ A, one for each expert (or group of a convolution) of its own: float64 pairs (d_out, r),
# (r, d_in) with the scale inside B.
Products = list[tuple[Tensor, Tensor]]


class Update(Protocol):
    """Whatever has a delta W: a layer, or a sum of layers."""

    def products(self) -> Products:
        """delta W, without forming it."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One adapted layer: `delta W = scale * B @ M @ A`.

    Attributes:
        name: of the module in the base model; ends in `.base_layer` where PEFT nests one wrapper in another.
        A: raw, (r, *in), or (experts * r, d_in), expert after expert. For an embedding (r, words).
        B: (d_out, r, *1), or (d_out, r / groups, *1) of a grouped convolution, or (d_out, r * experts), in which the
            experts alternate. For an embedding (d, r).
        M: (r, r) or (experts, r, r) of a learnable or frozen mixer, (r, r, *kernel) of a core; None for the butterfly
            and the identity.
        mixer: kind.
        r: rank.
        scale: alpha / r, or alpha / sqrt(r) with rsLoRA.
        experts: number of independent A, M, B; 1 but for `target_parameters`.
        is_embedding: whether the base layer is an embedding.
        extras: the layer's other tensors by the end of their key, for example "lora_magnitude_vector" of DoRA.
    """

    name: str
    A: Tensor
    B: Tensor
    M: Tensor | None
    mixer: Mixer
    r: int
    scale: float
    experts: int = 1
    is_embedding: bool = False
    extras: dict[str, Tensor] = field(default_factory=dict)

    @property
    def alpha(self) -> float:
        """What a client must take for alpha if it scales by alpha / r."""
        return self.scale * self.r

    def full_mixer(self) -> Tensor:
        """M (r, r) or (experts, r, r) in float64, whatever its kind; a core (*kernel, r, r)."""
        if self.mixer == "core" and self.M is not None:
            return self.M.double().movedim((0, 1), (-2, -1))
        if self.M is not None:
            return self.M.double()
        matrix = butterfly_mixer(self.r) if self.mixer == "butterfly" else torch.eye(self.r)
        return matrix.double() if self.experts == 1 else matrix.double().repeat(self.experts, 1, 1)

    def folded(self, dtype: torch.dtype | None = None) -> "Layer":
        """The plain LoRA that equals this layer: the mixer goes into A, or into B of an embedding.

        Args:
            dtype: of the result; that of the stored factors when None. The product itself is taken in float64.

        Raises:
            UnsupportedError: the product does not fit into the dtype.
        """
        A, B = self.A, self.B
        if self.mixer != "identity" and self.is_embedding:
            B = fold(B.double().T, self.full_mixer().mT).T
        elif self.mixer == "core" and self.M is not None:
            A = fold_core(A.double(), self.M.double())
        elif self.mixer != "identity":
            A = fold(A.double(), self.full_mixer())
        A, B = A.to(dtype or self.A.dtype), B.to(dtype or self.B.dtype)
        if not (torch.isfinite(A).all() and torch.isfinite(B).all()):
            raise UnsupportedError(
                f"{self.name}: the product of the mixer and {'B' if self.is_embedding else 'A'} is above the largest "
                f"{A.dtype} number: export in float32."
            )
        return replace(self, A=A, B=B, M=None, mixer="identity")

    def products(self) -> Products:
        """delta W, without forming it."""
        if self.mixer == "core":
            return self.folded(torch.float64).products()
        mixers = self.full_mixer().reshape(-1, self.r, self.r)  # (experts, r, r)
        A = mixers @ self.A.double().reshape(self.experts, self.r, -1)  # (experts, r, d_in)
        if self.experts > 1:
            B = self.B.double().reshape(len(self.B), self.r, self.experts).permute(2, 0, 1)  # (experts, d_out, r)
        else:
            groups = self.r // self.B.shape[1]
            B = self.B.double().reshape(groups, len(self.B) // groups, -1)  # (groups, d_out / groups, r / groups)
            A = A.reshape(groups, self.r // groups, -1)
        return [(self.scale * b, a) for b, a in zip(B, A, strict=True)]


@dataclass(frozen=True)
class Adapter:
    """A checked adapter.

    Attributes:
        config: the contents of adapter_config.json, peft_type "MOSLORA" or "LORA".
        layers: name -> layer.
        others: key (without PEFT's prefix) -> tensor of everything that is saved beside the LoRA layers, for example
            modules_to_save.
        file: where the weights came from, for messages.
    """

    config: dict[str, Any]
    layers: dict[str, Layer]
    others: dict[str, Tensor]
    file: Path

    def with_one_alpha(self) -> tuple[float, "Adapter"]:
        """The commonest alpha = scale * r of the layers, and an adapter whose B absorbs what the others differ by."""
        alpha = commonest(layer.alpha for layer in self.layers.values()) or 1.0
        layers = dict(self.layers)
        for name, layer in self.layers.items():
            if layer.alpha != alpha:
                B = (layer.B.double() * (layer.alpha / alpha)).to(layer.B.dtype)
                layers[name] = replace(layer, B=B, scale=alpha / layer.r)
        return alpha, replace(self, layers=layers)

    def unmixed_tensors(self) -> dict[str, Tensor]:
        """Every tensor that folding leaves as it is, by its key: the extras of the layers, and the others."""
        layers = self.layers.items()
        return self.others | {f"{name}.{part}": value for name, each in layers for part, value in each.extras.items()}

    def folded(self, dtype: torch.dtype | None = None) -> "Adapter":
        """The plain LoRA that equals this adapter, with a stock LoRA config."""
        config = {key: value for key, value in self.config.items() if key not in MIXER_SETTINGS}
        layers = {name: layer.folded(dtype) for name, layer in self.layers.items()}
        return replace(self, config={**config, "peft_type": "LORA"}, layers=layers)


# What MosLoraConfig adds to LoraConfig: stock PEFT does not know it.
MIXER_SETTINGS = {field.name for field in fields(MosLoraConfig)} - {field.name for field in fields(LoraConfig)}


def commonest(values: Iterable[Value]) -> Value:
    """The value that occurs most often."""
    return Counter(values).most_common(1)[0][0]


def norm(products: Products) -> float:
    """Frobenius norm of delta W, through r x r matrices."""
    total = torch.zeros((), dtype=torch.float64)
    for B, A in products:
        B_triangle, A_triangle = torch.linalg.qr(B, mode="r").R, torch.linalg.qr(A.T, mode="r").R
        total += (B_triangle @ A_triangle.T).square().sum()
    return float(total.sqrt())


def difference(found: Products, expected: Products) -> Products:
    """`found - expected`, as products of twice the rank."""
    return [
        (torch.cat([B, -B_expected], 1), torch.cat([A, A_expected], 0))
        for (B, A), (B_expected, A_expected) in zip(found, expected, strict=True)
    ]
