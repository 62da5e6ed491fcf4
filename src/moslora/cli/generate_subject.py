"""Draw the subject of trained runs in new settings, from the same noise for every run.

    moslora generate subject --run runs/lora runs/moslora --prompts live --seeds 0 1 2 3 --sheet comparison.png

Writes RUN/images/*.png, images.jsonl (prompt and seed of each), images.json (settings) and sheet.png. The same command
again goes on where it stopped; more prompts at the end of a file and more seeds join what is there.
"""

import dataclasses
from typing import Annotated

import tyro

from ..tasks.subject.config import SubjectGenerateConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora generate subject`."""

    config: Annotated[SubjectGenerateConfig, tyro.conf.arg(name="")]
    """All settings."""

    def run(self) -> None:
        """Draw, and say where the pictures are."""
        from ..tasks.subject.generate import SHEET, generate

        for folder, count in generate(self.config).items():
            print(f"{folder}: {count} pictures, all on {folder / SHEET}")
        if self.config.sheet:
            print(f"{self.config.sheet}: all runs side by side")
