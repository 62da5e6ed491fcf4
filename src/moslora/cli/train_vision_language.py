"""Fine-tune a LLaVA-shaped model on conversations about images.

    moslora train vision-language --recipe llava/llama3-8b-vit-l --model my-llava --data llava_v1_5_mix665k.json \\
        --images llava_images --out runs/moslora

Writes RUN/run.json, recipe.toml, data.json (rows, images by kind), metrics.jsonl, adapter/ (for exact resume and for
`moslora export`), lora/ (the equal plain LoRA) and projector.safetensors. The same command again resumes an unfinished
run exactly; a finished one is never overwritten. Later wins: defaults, --recipe, --set, flags. See also `moslora data
vision-language` and `moslora eval vision-language`.
"""

import dataclasses
from typing import Annotated

import tyro

from ..tasks.vision_language.config import VisionLanguageTrainConfig
from ._estimate import print_estimate
from ._outcome import print_outcome
from ._recipe import RunFlags, parse_with_recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command(RunFlags):
    """Arguments of `moslora train vision-language`."""

    config: Annotated[VisionLanguageTrainConfig, tyro.conf.arg(name="")]
    """All settings."""

    @classmethod
    def parse(cls, arguments: list[str]) -> "Command":
        """The command of these arguments: recipe and assignments become the defaults of the flags.

        Raises:
            ConfigError: a recipe or assignment that cannot be used.
        """
        words = "moslora train vision-language"
        return parse_with_recipe(cls, VisionLanguageTrainConfig, arguments, words=words, doc=__doc__)

    def run(self) -> None:
        """Train, or estimate."""
        if self.dry_run:
            from ..tasks.vision_language.estimate import estimate

            print_estimate(estimate(self.config), self.config.method)
            return
        out = self.run_folder
        from ..tasks.vision_language.train import train

        record = train(self.config, out)
        print_outcome(out, record)
        if skipped := record["samples"]["skipped"]:
            print(f"{skipped:,} rows that cannot be used were left out; {out / 'data.json'} says why")
        print(f"next: moslora eval vision-language --run {out} --data DIR --benchmarks NAME ...")
