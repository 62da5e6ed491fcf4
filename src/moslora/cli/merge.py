"""Write the base model with an adapter merged into its weights.

    moslora merge runs/moslora/adapter merged --base meta-llama/Meta-Llama-3-8B-Instruct
    moslora merge runs/qmoslora/adapter merged --onto original

Writes a full model folder, with the tokenizer and image processor of the base, which transformers, vLLM, lmms-eval or a
converter reads without PEFT. Every weight is the sum in float64, rounded once to the base's dtype, and read back and
compared. The projector that a vision-language run trained comes along. An existing OUT is never overwritten.

A run on a quantised base (4 or 8 bits) is merged into the weights that it saw, the dequantised ones: the result then
computes what the run computed. `--onto original` takes the weights from before they were quantised, which is another
function, nearer to the base. docs/vision-language-after.md has both measured.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from ..checkpoint import Quantization


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora merge`."""

    adapter: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ADAPTER")]
    """Folder with adapter_config.json and adapter_model.safetensors."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """New folder."""
    base: str | None = None
    """Folder or hub id of the base model, not quantised; what the adapter names if left out."""
    projector: Path | None = None
    """Trained projector of a vision-language model; projector.safetensors of the run around ADAPTER if left out."""
    onto: Literal["original", "dequantized"] | None = None
    """Weights to which the update of a run on a quantised base is added; dequantized if left out."""
    quantization: Literal["nf4", "nf4-double", "fp4", "fp4-double", "int8"] | None = None
    """How the base was quantised in training; what run.json of the run around ADAPTER says if left out."""

    def run(self) -> None:
        """Merge and say how to load the result."""
        from ..checkpoint import merge_adapter, projector_beside

        run = _run_record(self.adapter)
        quantization = _given(self.quantization) or _recorded(run)
        report = merge_adapter(
            self.adapter,
            self.out,
            base=self.base,
            projector=self.projector or projector_beside(self.adapter),
            quantization=quantization,
            onto=self.onto or ("dequantized" if quantization else "original"),
        )
        print(f"{self.out}: merged model, {report.updated} weights updated, {report.replaced} replaced")
        if quantization and report.dequantized:
            print(f"onto the weights of the run: {report.dequantized} are those that {quantization.kind} left")
        elif quantization:
            print(f"onto the original weights: the run saw those that {quantization.kind} left of them")
        print(f"verified: at most {report.roundings:.3f} of one rounding from W + delta W, in {report.layer}")
        print(f'next: model = transformers.{report.class_name}.from_pretrained("{self.out}")')


def _run_record(adapter: Path) -> dict[str, Any]:
    """The settings of the run that an adapter folder lies in; empty if it lies in none."""
    from .. import runs

    folder = adapter.resolve().parent
    return dict(runs.finished_record(folder)["config"]) if (folder / "run.json").is_file() else {}


def _given(name: str | None) -> "Quantization | None":
    from ..checkpoint import Quantization

    if name is None:
        return None
    kind, _, double = name.partition("-")
    return Quantization(kind, double=bool(double))  # type: ignore[arg-type]


def _recorded(config: dict[str, Any]) -> "Quantization | None":
    """The quantisation in the settings of a vision-language run; other runs have none."""
    from ..checkpoint import Quantization

    if config.get("quantize", "none") == "none":
        return None
    from ..tasks.vision_language.model import NEVER_QUANTIZED

    return Quantization(config["quantize"], config["double_quantize"], NEVER_QUANTIZED)
