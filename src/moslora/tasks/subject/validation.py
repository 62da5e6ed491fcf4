"""Pictures during training, always from the same noise, so that they show what the steps between them changed."""

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from PIL import Image

from ... import runs
from .attach import Adapted
from .config import SubjectTrainConfig
from .images import save_whole
from .pipeline import draw, size_multiple
from .sheet import Row, draw_sheet

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

STRIP = "strip.png"


class Validation:
    """Draws the validation prompts of a run every so many steps.

    Writes FOLDER/000100-0.png for prompt 0 after 100 steps, and FOLDER/strip.png of all of them: a row per prompt, a
    column per drawing.

    Args:
        pipeline: with the adapted networks.
        adapted: those networks.
        config: all settings.
        folder: RUN/validation.
        joint: whether a drawing needs every process, since each holds a part of the weights.
    """

    def __init__(
        self,
        pipeline: "DiffusionPipeline",
        adapted: Adapted,
        config: SubjectTrainConfig,
        folder: Path,
        *,
        joint: bool = False,
    ) -> None:
        self.pipeline = pipeline
        self.adapted = adapted
        self.config = config
        self.folder = folder
        self.joint = joint

    def __call__(self, done: int) -> None:
        """Draw, if it is time after this many steps and the pictures are not there already."""
        writes = runs.is_main_process()
        due = done % self.config.validation_steps == 0 or done == self.config.max_steps
        if not (due and self.config.validation_prompts and (writes or self.joint)):
            return
        paths = [self.folder / f"{done:06d}-{number}.png" for number in range(len(self.config.validation_prompts))]
        if all(path.exists() for path in paths):
            return
        if writes:
            self.folder.mkdir(exist_ok=True)
        for model in self.adapted.values():
            model.eval()
        multiple = size_multiple(self.pipeline)
        side = self.config.resolution // multiple * multiple
        with torch.random.fork_rng():
            for path, prompt in zip(paths, self.config.validation_prompts, strict=True):
                image = draw(
                    self.pipeline,
                    [prompt],
                    [runs.stream_seed(self.config.seed, f"validation/{prompt}")],
                    width=side,
                    height=side,
                    steps=self.config.validation_inference_steps,
                    guidance=self.config.guidance,
                )[0]
                if writes:
                    save_whole(image, path)
        if writes:
            self._strip().save(self.folder / STRIP)

    def _strip(self) -> Image.Image:
        steps = sorted({int(path.name.partition("-")[0]) for path in self.folder.glob("*-0.png")})
        rows = [
            Row(prompt, [Image.open(self.folder / f"{step:06d}-{number}.png") for step in steps])
            for number, prompt in enumerate(self.config.validation_prompts)
        ]
        return draw_sheet([f"step {step}" for step in steps], rows)
