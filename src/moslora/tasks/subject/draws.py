"""What chance decides in a training step, from the seed of the run and the number of the step alone.

Nothing here remembers anything. So a resumed run sees what an uninterrupted one would have seen, and so does a run
that is split over other micro-batches or processes.
"""

import functools
import random
from typing import NamedTuple

import torch
from torch import Tensor

from ... import runs
from .pipeline import LatentDistribution


class Draw(NamedTuple):
    """What is drawn for one picture of a step."""

    latents: Tensor  # (channels, height, width), sampled from the VAE's distribution
    noise: Tensor  # the same
    timestep: int


@functools.lru_cache(maxsize=8)
def _order(seed: int, stream: str, epoch: int, count: int) -> tuple[int, ...]:
    indices = list(range(count))
    random.Random(runs.stream_seed(seed, f"{stream}/{epoch}")).shuffle(indices)
    return tuple(indices)


def chosen(seed: int, stream: str, step: int, count: int, batch_size: int) -> list[int]:
    """Indices of the pictures of a step, 0 being the first; every picture is seen once before any is seen again.

    Args:
        seed: of the run.
        stream: name of the set of pictures, so that several have orders of their own.
        step: number of the step.
        count: pictures in the set.
        batch_size: pictures in a step.
    """
    numbers = range(step * batch_size, (step + 1) * batch_size)
    return [_order(seed, stream, number // count, count)[number % count] for number in numbers]


def draw(
    distribution: LatentDistribution, timesteps: int, *, seed: int, stream: str, step: int, place: int, offset: float
) -> Draw:
    """Latents, noise and time step of one picture.

    Args:
        distribution: of its latents.
        timesteps: of the noise schedule.
        seed: of the run.
        stream: name of the set of pictures.
        step: number of the step.
        place: of the picture within the step.
        offset: size of the noise that is constant in each channel.
    """
    generator = torch.Generator().manual_seed(runs.stream_seed(seed, f"{stream}/noise/{step}/{place}"))
    shape = distribution.mean.shape
    timestep = int(torch.randint(timesteps, (1,), generator=generator))
    latents = distribution.sample(torch.randn(shape, generator=generator))
    noise = torch.randn(shape, generator=generator)
    if offset:
        noise = noise + offset * torch.randn(shape[0], 1, 1, generator=generator)
    return Draw(latents, noise, timestep)
