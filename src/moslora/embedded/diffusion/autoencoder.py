"""The autoencoder of the embedded diffusion model: how it is trained, and the scale of its latents."""

from collections.abc import Iterable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from .loop import Loop
from .parts import new_autoencoder
from .pictures import draw_picture

if TYPE_CHECKING:
    from diffusers import AutoencoderKL

BATCH_SIZE = 8  # pictures
RATES = 0.02, 2e-3
KL_WEIGHT = 2e-5  # of the divergence of one latent number, against the mean error of one pixel in [-1, 1]
MEASURED = 512  # pictures over which the scale of the latents is measured


def train_autoencoder(steps: int, seed: int, state: Path) -> "AutoencoderKL":
    """A trained autoencoder whose latents have mean 0 and deviation 1 after the pipeline's scaling."""
    torch.manual_seed(seed)
    model = new_autoencoder().to(memory_format=torch.channels_last)
    loop = Loop({"vae": model}, steps, RATES, state)

    def loss(step: int) -> Tensor:
        pixels = as_pixels(
            draw_picture(Random(f"{seed}/autoencoder/{step}/{number}")).image for number in range(BATCH_SIZE)
        )
        posterior = model.encode(pixels).latent_dist
        error = model.decode(posterior.sample(torch.Generator().manual_seed(step))).sample - pixels
        return (
            error.abs().mean() + error.square().mean() + KL_WEIGHT * posterior.kl().mean() / posterior.mean[0].numel()
        )

    loop.run(loss, "autoencoder")
    pixels = as_pixels(draw_picture(Random(f"{seed}/scale/{number}")).image for number in range(MEASURED))
    _normalise(model, encode(model, pixels))
    return model


def as_pixels(images: Iterable[Image.Image]) -> Tensor:
    """Pictures as numbers in [-1, 1], (number, 3, side, side)."""
    stacked = np.stack([np.asarray(image) for image in images])
    pixels = torch.from_numpy(stacked).permute(0, 3, 1, 2).float() / 127.5 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def encode(model: "AutoencoderKL", pixels: Tensor) -> Tensor:
    """The means of the latents, not scaled, (number, channels, rows, columns)."""
    return torch.cat([model.encode(some).latent_dist.mean for some in pixels.split(32)])


@torch.no_grad()
def _normalise(model: "AutoencoderKL", latents: Tensor) -> None:
    """Change the 1 x 1 convolutions about the latents so that each channel has mean 0 and deviation 1 / scaling factor.

    With SDXL's scaling factor, code that forgets it fails here as it does there.
    """
    mean = latents.mean((0, 2, 3))
    scale = latents.std((0, 2, 3)) * model.config.scaling_factor  # old numbers per new number
    inwards, outwards, channels = model.quant_conv, model.post_quant_conv, len(mean)
    inwards.weight[:channels] /= scale[:, None, None, None]
    inwards.bias[:channels].sub_(mean).div_(scale)
    inwards.bias[channels:] -= 2 * scale.log()  # the other half are logarithms of variances
    outwards.bias += outwards.weight[:, :, 0, 0] @ mean
    outwards.weight *= scale[None, :, None, None]
