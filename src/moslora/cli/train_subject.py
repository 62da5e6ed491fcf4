"""Teach a diffusion model a subject from a few photographs (DreamBooth with an adapter).

    moslora train subject --recipe subject/sdxl --model stabilityai/stable-diffusion-xl-base-1.0 \\
        --images photos/dog --prompt "a photo of sks dog" --method moslora --out runs/dog

Writes RUN/run.json, recipe.toml, metrics.jsonl, adapter/ (and text_encoder_adapter/, text_encoder_2_adapter/ where they
are trained; for exact resume and for `moslora export`), lora/ (the equal plain LoRA of all of them, for diffusers) and
lora-kohya.safetensors (the same for ComfyUI and A1111). The same command again resumes an unfinished run exactly; a
finished one is never overwritten. Later wins: defaults, --recipe, --set, flags. See also `moslora generate subject`.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from ..errors import ConfigError
from ..tasks.subject.config import SubjectTrainConfig
from ._recipe import parse_with_recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora train subject`."""

    config: Annotated[SubjectTrainConfig, tyro.conf.arg(name="")]
    """All settings."""
    out: Path | None = None
    """Folder of the run: a new one, or that of an unfinished run, which is then resumed."""
    recipe: str | None = None
    """Name of a published setting, such as subject/sdxl, or the path of a .toml file."""
    set: tuple[str, ...] = ()
    """Settings as key=value, which replace those of the recipe."""

    @classmethod
    def parse(cls, arguments: list[str]) -> "Command":
        """The command of these arguments: recipe and assignments become the defaults of the flags.

        Raises:
            ConfigError: a recipe or assignment that cannot be used.
        """
        return parse_with_recipe(cls, SubjectTrainConfig, arguments, words="moslora train subject", doc=__doc__)

    def run(self) -> None:
        """Train."""
        if self.out is None:
            raise ConfigError("No run folder: give one with --out.")
        from ..tasks.subject.train import train

        record = train(self.config, self.out)
        print(
            f"{self.out}: {record['steps']} steps, {record['parameters']['trainable']:,} trained parameters, "
            f"loss {record['final_loss']:.4f}, {record['seconds']:.0f} s"
        )
        print(f"next: moslora generate subject --run {self.out}")
