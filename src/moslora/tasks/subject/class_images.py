"""Prior preservation: pictures of the class, drawn by the base model where they are missing."""

from pathlib import Path
from typing import TYPE_CHECKING

from ... import runs
from ...errors import RunError
from ..progress import progress_bar
from .config import SubjectTrainConfig
from .images import SUFFIXES, folder_identity, save_whole
from .pipeline import draw, size_multiple

if TYPE_CHECKING:
    from accelerate import Accelerator
    from diffusers import DiffusionPipeline

STEPS = 50  # denoising steps of a picture


def class_folder(config: SubjectTrainConfig, run: Path) -> Path:
    """Where the pictures of the class are."""
    return Path(config.class_images) if config.class_images else run / "class-images"


def complete_class_images(
    pipeline: "DiffusionPipeline", config: SubjectTrainConfig, run: runs.Run, accelerator: "Accelerator"
) -> Path:
    """Draw the missing pictures of the class, from noise that the run's seed decides, and record what is there.

    Args:
        pipeline: the base, before it is adapted.
        config: all settings.
        run: an open run.
        accelerator: the first of its processes draws.

    Returns:
        the folder.

    Raises:
        RunError: the run was begun with other pictures.
    """
    folder = class_folder(config, run.folder)
    if accelerator.is_main_process:
        folder.mkdir(parents=True, exist_ok=True)
        there = sum(path.suffix.lower() in SUFFIXES for path in folder.iterdir())
        names = (f"class-{number:04d}.png" for number in range(config.class_count))
        missing = [name for name in names if not (folder / name).exists()][: max(0, config.class_count - there)]
        _draw(pipeline, config, folder, missing)
        found = folder_identity(folder)
        if run.record.setdefault("class_images", found) != found:
            raise RunError(
                f"{folder} holds other pictures than when this run began. Put them back, or choose another --out."
            )
        run.save()
    accelerator.wait_for_everyone()
    return folder


def _draw(pipeline: "DiffusionPipeline", config: SubjectTrainConfig, folder: Path, names: list[str]) -> None:
    multiple = size_multiple(pipeline)
    side = config.resolution // multiple * multiple
    with progress_bar() as bar:
        task = bar.add_task("draw class", total=len(names), note="")
        for start in range(0, len(names), config.micro_batch_size):
            batch = names[start : start + config.micro_batch_size]
            images = draw(
                pipeline,
                [config.class_prompt] * len(batch),
                [runs.stream_seed(config.seed, f"class/{name}") for name in batch],
                width=side,
                height=side,
                steps=STEPS,
                guidance=config.guidance,
            )
            for name, image in zip(batch, images, strict=True):
                save_whole(image, folder / name)
            bar.update(task, advance=len(batch))
