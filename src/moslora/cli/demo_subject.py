"""Teach a small diffusion model a new character offline in a few minutes, with LoRA and with MoSLoRA side by side.

    moslora demo subject --out demo-subject

Uses the small SDXL-shaped pipeline that comes with the package, and five pictures of a character that the package
draws. Every step is a command that is printed before it runs. A finished step is not repeated; remove the folder to see
all of it again.
"""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MoSLoRAError
from ._steps import moslora_together

if TYPE_CHECKING:
    import numpy as np

RECIPE = "subject/embedded"
METHODS = {"lora": "lora", "moslora": "moslora-orthogonal"}  # folder of the run -> method
PROMPT = "a photo of sks creature"
SEEDS = (0, 1)
STEPS = 25  # of denoising
GUIDANCE = 3.0
BATCH = 8  # pictures drawn at a time
LARGEST_DIFFERENCE = 1e-4  # of a pixel in [0, 1]

# Runs in a process that never sees moslora: what a user of plain diffusers would write.
STOCK_DIFFUSERS = """
import sys
import numpy, torch, diffusers

model, prompt, seed, steps, guidance, pictures, *adapters = sys.argv[1:]
drawn = []
for adapter in [None, *adapters]:
    pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(model)
    if adapter:
        pipeline.load_lora_weights(adapter)
    drawn += [pipeline(prompt, generator=torch.Generator().manual_seed(int(seed)), num_inference_steps=int(steps),
                       guidance_scale=float(guidance), output_type="np").images[0]]
numpy.save(pictures, numpy.stack(drawn))
assert "moslora" not in sys.modules
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora demo subject`."""

    out: Path = Path("demo-subject")
    """Folder for everything the demo makes."""

    def run(self) -> None:
        """Run every step and say where its results are."""
        from ..embedded.characters import write_subject
        from ..embedded.diffusion import diffusion_model_folder

        start = time.perf_counter()
        subject, runs = self.out / "subject", {name: self.out / name for name in METHODS}
        write_subject(subject)
        print(f"five pictures of the character and {subject / 'prompts.txt'} are written")
        training = ("train", "subject", "--recipe", RECIPE, "--images", subject / "images", "--prompt", PROMPT)
        moslora_together(
            *(
                (*training, "--method", method, "--out", runs[name])
                for name, method in METHODS.items()
                if not (runs[name] / "lora").exists()
            )
        )
        drawing: tuple[object, ...] = ("--prompts", subject / "prompts.txt", "--seeds", *SEEDS)
        drawing += ("--steps", STEPS, "--guidance", GUIDANCE, "--batch-size", BATCH)
        draw = ("generate", "subject", "--run")
        moslora_together(
            (*draw, runs["lora"], *drawing, "--base-only"), *((*draw, run, *drawing) for run in runs.values())
        )
        sheet = self._write_sheet(runs, subject)
        self._compare_with_stock_diffusers(runs["moslora"], subject, diffusion_model_folder())
        print(f"\nOpen {sheet.resolve()}")
        print("Which method is better? Rate the pictures blind:")
        print(f"  moslora rate build {runs['lora']} {runs['moslora']} --out {self.out / 'study'}")
        print(f"  moslora rate serve {self.out / 'study'}")
        print(f"Finished in {time.perf_counter() - start:.0f} s. Everything is in {self.out.resolve()}")

    def _write_sheet(self, runs: dict[str, Path], subject: Path) -> Path:
        """One row a prompt: what the base draws, what LoRA, and what MoSLoRA, from the same noise."""
        from PIL import Image

        from ..tasks.subject.generate import picture_name
        from ..tasks.subject.sheet import Row, draw_sheet

        columns = {
            f"{title}, noise {seed}": (folder, seed)
            for title, folder in {
                "base": runs["lora"] / "images-base",
                "LoRA": runs["lora"] / "images",
                "MoSLoRA": runs["moslora"] / "images",
            }.items()
            for seed in SEEDS
        }
        prompts = (subject / "prompts.txt").read_text(encoding="utf-8").splitlines()
        rows = [
            Row(prompt, [Image.open(folder / picture_name(number, seed)) for folder, seed in columns.values()])
            for number, prompt in enumerate(prompts)
        ]
        references = [Image.open(path) for path in sorted((subject / "images").iterdir())]
        sheet = self.out / "sheet.png"
        draw_sheet(list(columns), rows, references, cell=128).save(sheet)
        return sheet

    def _compare_with_stock_diffusers(self, run: Path, subject: Path, model: Path) -> None:
        """Load the two exported files without moslora, in another process, and compare the pictures with MoSLoRA's."""
        import numpy as np

        print("\nstock diffusers, in another process, loads both exported files of MoSLoRA")
        prompt, seed = (subject / "prompts.txt").read_text(encoding="utf-8").splitlines()[0], 0
        pictures = self.out / "stock-diffusers.npy"
        words = [sys.executable, "-W", "ignore", "-c", STOCK_DIFFUSERS, model, prompt, seed, STEPS, GUIDANCE, pictures]
        words += [run / "lora", run / "lora-kohya.safetensors"]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        if done.returncode:
            raise MoSLoRAError(
                f"Stock diffusers cannot load the exports of {run}: {done.stderr.strip().splitlines()[-1]}"
            )
        ours = _draw(run, prompt, seed)
        base, *exports = np.load(pictures)
        print(f"  MoSLoRA changes pixels by up to {np.abs(ours - base).max():.2f} of their range")
        for name, theirs in zip(("diffusers", "kohya"), exports, strict=True):
            difference = float(np.abs(ours - theirs).max())
            print(f"  {name} file: largest difference of a pixel {difference:.1e}")
            if difference > LARGEST_DIFFERENCE:
                raise MoSLoRAError(f"The {name} file of {run} does not draw what the adapter does.")


def _draw(run: Path, prompt: str, seed: int) -> "np.ndarray":
    """What the adapter of a run draws, (height, width, 3) in [0, 1]."""
    import torch

    from ..tasks.subject.attach import load_adapters
    from ..tasks.subject.pipeline import load_pipeline, locate

    pipeline = load_pipeline(locate("embedded"), torch.float32)
    load_adapters(pipeline, run)
    noise = torch.Generator().manual_seed(seed)
    return pipeline(
        prompt, generator=noise, num_inference_steps=STEPS, guidance_scale=GUIDANCE, output_type="np"
    ).images[0]
