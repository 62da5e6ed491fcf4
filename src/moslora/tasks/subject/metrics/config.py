"""Settings of `moslora eval subject`. Their docstrings are the help of the command-line flags."""

import dataclasses
from pathlib import Path
from typing import Literal, get_args

Metric = Literal["dino", "dinov2", "clip-i", "clip-t", "lpips"]
METRICS: tuple[Metric, ...] = get_args(Metric)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubjectEvalConfig:
    """What is measured, and with which models."""

    metrics: tuple[Metric, ...] = METRICS
    """Which numbers; lpips is left out as long as --lpips names no weights."""
    dino: str = "facebook/dino-vits16"
    """Folder or hub id of the model whose class token DINO compares."""
    dinov2: str = "facebook/dinov2-base"
    """Likewise for DINOv2."""
    clip: str = "openai/clip-vit-base-patch32"
    """Folder or hub id of the model of CLIP-I and CLIP-T."""
    lpips: Path | None = None
    """Folder with torchvision's alexnet-owt-*.pth and lpips' alex.pth (or vgg16-*.pth and vgg.pth), also as
    .safetensors."""
    lpips_net: Literal["alex", "vgg"] = "alex"
    """Which of the two networks LPIPS looks with."""
    allow_pickle: bool = False
    """Read .pth files of --lpips; only tensors are then unpickled, no code is run."""
    references: Path | None = None
    """Folder of photographs of the subject; that of the run's training if left out."""
    unique_token: str | None = None
    """Word for the subject that is left out of the prompts for CLIP-T; found in the run's own prompts if not given."""
    base_only: bool = False
    """Measure RUN/images-base, which the base model drew without its adapter, into RUN/eval-base."""
    pictures: str = ""
    """Another folder of the run with pictures, which `generate --into` has filled, NAME; results go to eval-NAME."""
    batch_size: int = 16
    """Pictures that a model sees at once."""
    resamples: int = 2000
    """Draws of the bootstrap behind every interval."""
    seed: int = 0
    """Of the bootstrap."""
