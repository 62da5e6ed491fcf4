"""Teach a diffusion model a subject from a few photographs (DreamBooth with an adapter).

    moslora train subject --recipe subject/sdxl --model stabilityai/stable-diffusion-xl-base-1.0 \\
        --images photos/dog --prompt "a photo of sks dog" --method moslora --out runs/dog

Writes RUN/run.json, recipe.toml, metrics.jsonl, adapter/ (and text_encoder_adapter/, text_encoder_2_adapter/ where they
are trained; for exact resume and for `moslora export`), lora/ (the equal plain LoRA of all of them, for diffusers) and
lora-kohya.safetensors (the same for ComfyUI and A1111). The same command again resumes an unfinished run exactly; a
finished one is never overwritten. Later wins: defaults, --recipe, --set, flags. See also `moslora generate subject`.
"""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import tyro

from ..tasks.subject.config import SubjectTrainConfig
from ._outcome import print_outcome
from ._recipe import RunFlags, parse_with_recipe

if TYPE_CHECKING:
    from ..tasks.subject.estimate import Estimate


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command(RunFlags):
    """Arguments of `moslora train subject`."""

    config: Annotated[SubjectTrainConfig, tyro.conf.arg(name="")]
    """All settings."""

    @classmethod
    def parse(cls, arguments: list[str]) -> "Command":
        """The command of these arguments: recipe and assignments become the defaults of the flags.

        Raises:
            ConfigError: a recipe or assignment that cannot be used.
        """
        return parse_with_recipe(cls, SubjectTrainConfig, arguments, words="moslora train subject", doc=__doc__)

    def run(self) -> None:
        """Train, or estimate."""
        if self.dry_run:
            from ..tasks.subject.estimate import estimate

            print_estimate(estimate(self.config), self.config.method)
            return
        out = self.run_folder
        from ..tasks.subject.train import train

        record = train(self.config, out)
        print_outcome(out, record)
        print(f"next: moslora generate subject --run {out}")


def print_estimate(numbers: "Estimate", method: str) -> None:
    """Print parameters and memory as a table."""
    from rich.console import Console
    from rich.table import Table

    from ..tasks.subject.estimate import FORMULAS

    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, count in numbers.trainable.items():
        table.add_row(f"trainable parameters of {name}", f"{count:,}")
    share = sum(numbers.trainable.values()) / numbers.total
    table.add_row("of the pipeline", f"{share:.4%}", end_section=True)
    for part in ("weight", "adapter", "gradient", "optimizer", "activation"):
        table.add_row(f"{part} memory", f"{getattr(numbers, f'{part}_bytes') / 2**30:,.3f} GiB")
    table.add_row("estimate of the peak", f"{numbers.bytes / 2**30:,.3f} GiB")
    console = Console()
    console.print(f"{method} on {numbers.total:,} frozen parameters ({numbers.dtype})")
    console.print(table)
    console.print("\n".join(FORMULAS), style="dim", soft_wrap=True)
