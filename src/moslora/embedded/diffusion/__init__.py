"""The small diffusion model that comes with the package: SDXL's parts at a size that a CPU trains in minutes.

6.7 million parameters of a denoiser, an autoencoder and two text encoders, trained by
`python -m moslora.embedded.diffusion.build` on pictures that the package draws.
"""

from pathlib import Path

__all__ = ["diffusion_model_folder"]


def diffusion_model_folder() -> Path:
    """The pipeline as a folder that diffusers' `StableDiffusionXLPipeline` can load."""
    return Path(__file__).parent / "model"
