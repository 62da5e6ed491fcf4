"""Put a LLaVA model together: a language model, a vision tower of CLIP and a projector.

    moslora assemble --language-model Llama-3-8B-Instruct --vision-model clip-vit-large-patch14-336 --out llava
    moslora assemble --language-model LM --vision-model CLIP --projector mm_projector.bin --allow-pickle --out llava

Writes a folder that transformers loads as LlavaForConditionalGeneration, with its processor: the tokenizer gets an
`<image>` token and keeps its chat template. Without --projector the projector is untrained: train it first. One tensor
is in memory at a time. An existing OUT is never overwritten.
"""

import dataclasses
from pathlib import Path
from typing import Literal


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora assemble`."""

    language_model: Path
    """Folder of a causal language model with its tokenizer: Llama, Mistral, Qwen, InternLM3. InternLM2 is remote code
    and cannot be used."""
    vision_model: Path
    """Folder of CLIP, or of its vision part, with preprocessor_config.json."""
    out: Path
    """New folder."""
    projector: Path | None = None
    """Trained projector: XTuner's projector/ folder, LLaVA's mm_projector.bin, another LLaVA folder, or a run."""
    dtype: Literal["float32", "bfloat16", "float16"] | None = None
    """Of all weights; that of the language model if left out."""
    feature_layer: int = -2
    """Layer of the vision tower whose outputs are seen; -2 is the last but one, as in LLaVA 1.5 and XTuner."""
    strategy: Literal["default", "full"] = "default"
    """default leaves out CLIP's class token, full keeps it."""
    allow_pickle: bool = False
    """Read .bin files, tensors only."""
    seed: int = 0
    """Of an untrained projector and of the embeddings of new tokens."""

    def run(self) -> None:
        """Put together and say how to load the result."""
        from ..tasks.vision_language.assemble import assemble

        settings = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        made = assemble(**settings)
        print(f"{self.out}: {made.parameters:,} parameters in {str(made.dtype).removeprefix('torch.')}")
        print(f"<image> is token {made.image_token_id}; {made.added_rows} rows were added to the embedding")
        print(f"projector: {made.projector or 'untrained'}")
        if made.projector is None:
            print(f"next: moslora train vision-language --model {self.out} --train projector --data DATA --out RUN")
        else:
            print(f'next: model = transformers.LlavaForConditionalGeneration.from_pretrained("{self.out}")')
