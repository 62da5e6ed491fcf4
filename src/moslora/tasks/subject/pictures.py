"""The pictures of a run as the loop takes them: encoded once, then cut into micro-batches of one size, step by step."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from ... import runs
from ..progress import progress_bar
from .config import PictureConfig
from .draws import chosen, draw
from .images import find_pictures, prepare
from .pipeline import LatentDistribution, encode_pixels, size_multiple

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

SUBJECT, CLASS = "subject", "class"  # the two sets of pictures, and their streams of chance


class PictureSet(NamedTuple):
    """Encoded pictures that share a prompt."""

    stream: str  # SUBJECT or CLASS
    names: list[str]
    latents: list[LatentDistribution]
    time_ids: list[Tensor]  # (6,) each
    weight: float  # of their loss


class MicroBatch(NamedTuple):
    """Pictures of one set and one size, with what chance has decided for them."""

    stream: str
    indices: list[int]  # of the pictures in their set
    latents: Tensor  # (batch, channels, height, width)
    noise: Tensor  # the same
    timesteps: Tensor  # (batch,)
    time_ids: Tensor  # (batch, 6)


def encode_folder(
    pipeline: "DiffusionPipeline", folder: Path, config: PictureConfig, seed: int, *, stream: str, weight: float = 1.0
) -> PictureSet:
    """Cut and encode every picture of a folder.

    What is kept of a picture is the mean and deviation of its latents, not a sample, so that each step samples anew, as
    it would if the VAE ran each time. They are encoded one by one, so that none depends on its neighbours.

    Args:
        pipeline: whose VAE encodes, on the device it is on.
        folder: of the pictures.
        config: how they are cut.
        seed: of the run.
        stream: name of the set.
        weight: of its loss.

    Raises:
        DataError: a picture cannot be read.
    """
    multiple = size_multiple(pipeline)
    paths = find_pictures(folder)
    if stream == CLASS:
        paths = paths[: config.class_count]
    latents, time_ids = [], []
    with progress_bar() as bar:
        task = bar.add_task(f"encode {stream}", total=len(paths), note="")
        for path in paths:
            picture = prepare(
                path,
                resolution=config.resolution,
                multiple=multiple,
                buckets=config.buckets,
                crop=config.crop,
                seed=runs.stream_seed(seed, "data"),
            )
            latents.append(encode_pixels(pipeline, picture.pixels()))
            time_ids.append(picture.time_ids())
            bar.update(task, advance=1)
    return PictureSet(stream, [path.name for path in paths], latents, time_ids, weight)


def micro_batches(
    pictures: PictureSet,
    step: int,
    *,
    seed: int,
    batch_size: int,
    micro_batch_size: int,
    timesteps: int,
    noise_offset: float = 0.0,
    process: int = 0,
    processes: int = 1,
) -> Iterator[MicroBatch]:
    """The pictures of one step that one process sees, those of equal size together.

    Args:
        pictures: one set.
        step: number of the step, from 0.
        seed: of the run.
        batch_size: pictures of the step, over all processes.
        micro_batch_size: pictures at a time at most.
        timesteps: of the noise schedule.
        noise_offset: size of the noise that is constant in each channel.
        process: number of this process.
        processes: how many there are.
    """
    indices = chosen(seed, f"{pictures.stream}/order", step, len(pictures.names), batch_size)
    groups: dict[torch.Size, list[int]] = {}
    for place in range(process, batch_size, processes):
        groups.setdefault(pictures.latents[indices[place]].mean.shape, []).append(place)
    for places in groups.values():
        for start in range(0, len(places), micro_batch_size):
            part = places[start : start + micro_batch_size]
            draws = [
                draw(
                    pictures.latents[indices[place]],
                    timesteps,
                    seed=seed,
                    stream=pictures.stream,
                    step=step,
                    place=place,
                    offset=noise_offset,
                )
                for place in part
            ]
            yield MicroBatch(
                pictures.stream,
                [indices[place] for place in part],
                torch.stack([each.latents for each in draws]),
                torch.stack([each.noise for each in draws]),
                torch.tensor([each.timestep for each in draws]),
                torch.stack([pictures.time_ids[indices[place]] for place in part]),
            )
