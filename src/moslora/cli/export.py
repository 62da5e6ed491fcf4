"""Write an adapter as the plain LoRA that equals it, for any client of LoRA.

    moslora export runs/moslora/adapter my-lora --format peft
    moslora export runs/llava/adapter my-llava --format xtuner
    moslora export runs/moslora/adapter my-lora.gguf --format gguf --base meta-llama/Meta-Llama-3-8B-Instruct

The mixer is folded into A, at the same rank, so nothing is lost. The result is read back and compared with the adapter
before it gets its name; an existing OUT is never overwritten. peft and diffusers write a folder, kohya a .safetensors
file, gguf (llama.cpp) a .gguf file. xtuner writes a folder that VLMEvalKit's LLaVA_XTuner loads: a plain LoRA of the
language model, one of the vision tower, and the projector.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora export`."""

    adapter: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ADAPTER")]
    """Folder with adapter_config.json and adapter_model.safetensors, or a run of `moslora train subject`."""
    out: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="OUT")]
    """New folder (peft, diffusers, xtuner) or file (kohya, gguf)."""
    format: Literal["peft", "diffusers", "kohya", "gguf", "xtuner"] = "peft"
    """Which clients shall read it."""
    base: str | None = None
    """gguf: folder or hub id of the base model, of which config.json is read. xtuner: folder of the base model, whose
    projector is taken if none was trained. What the adapter names if left out."""
    component: Literal["unet", "transformer", "text_encoder", "text_encoder_2"] | None = None
    """diffusers, kohya: adapted part of the pipeline; a unet or transformer is recognised."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of the written factors; the adapter's if left out."""

    def run(self) -> None:
        """Export and print how exact the result is."""
        from ..checkpoint import export_adapter

        report = export_adapter(
            self.adapter, self.out, format=self.format, base=self.base, component=self.component, dtype=self.dtype
        )
        layer, difference = report.largest
        print(f"{self.out}: plain LoRA, {len(report.differences)} layers, format {self.format}")
        print(f"verified: largest relative difference of delta W {difference:.1e}, in {layer}")
        print(f"next: {report.next_step}")
