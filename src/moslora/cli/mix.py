"""Put several adapters of one base model together: one MoSLoRA adapter that computes their weighted sum.

    moslora mix runs/style/adapter runs/dog/adapter --weights 0.7 0.5 --out mixed

In each layer the ranks add up and the mixer is block diagonal, so nothing is lost; the result is read back and compared
with the sum before it gets its name. Writes the adapter and mix.json (what it was made of). An existing folder is never
overwritten. The blocks outside the diagonal are zero and can be trained: see docs/mixing.md.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora mix`."""

    adapters: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="ADAPTER...")]
    """Folders with adapter_config.json and adapter_model.safetensors, of LoRA or MoSLoRA; two or more."""
    out: Path
    """New folder."""
    weights: tuple[float, ...] = ()
    """One number for each adapter, in the same order; all 1 if left out."""
    base: str | None = None
    """Name of the base model, where the adapters give it different names."""

    def run(self) -> None:
        """Mix, and print how exact the result is."""
        from ..checkpoint import mix_adapters

        report = mix_adapters(self.adapters, self.out, weights=self.weights, base=self.base)
        layer, difference = report.largest
        shared = sum(sum(rank > 0 for rank in ranks) > 1 for ranks in report.ranks.values())
        print(
            f"{self.out}: MoSLoRA adapter, {len(report.ranks)} layers, {shared} of them with blocks of several adapters"
        )
        print(f"verified: largest relative difference of delta W from the weighted sum {difference:.1e}, in {layer}")
        print(f"next: moslora export {self.out} LORA")
