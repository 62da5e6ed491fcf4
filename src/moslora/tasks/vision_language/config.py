"""Settings of visual instruction tuning. Their docstrings are the help of the command-line flags."""

import dataclasses
from typing import Literal

from ..settings import TrainerSettings, problems, refuse

PROJECTOR, ADAPTER, BOTH = "projector", "adapter", "adapter+projector"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which conversations and images, and what to do with broken ones."""

    data: tuple[str, ...] = ()
    """.json or .jsonl files of LLaVA's form: rows of `conversations` and, where there is one, `image`."""
    images: str = ""
    """Folder in which the images' paths begin."""
    skip_broken: bool = False
    """Leave out rows that cannot be used and rows whose image cannot be read, instead of stopping."""
    max_pixels: int = 89_478_485
    """An image with more is taken for a decompression bomb. The default is Pillow's."""
    image_check: str = ""
    """File that keeps what is known of every image, so that none is read twice; RUN/.images.jsonl unless given."""
    max_tokens: int = 2048
    """Tokens of a row, those of its image included; longer rows are cut at the end."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model, as InternLM2 needs; InternLM3 is part of transformers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionLanguageDataConfig(DataConfig):
    """Settings of a look at training data."""

    model: str = ""
    """Count tokens with the processor of this folder or hub id, or of `embedded`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class VisionLanguageTrainConfig(DataConfig, TrainerSettings):
    """Settings that decide the result. Rank and alpha are those of the language model."""

    model: str
    """Folder of a LLaVA model, its hub id, or `embedded` for the small one of this package."""
    train: Literal["adapter", "adapter+projector", "projector"] = "adapter+projector"
    """adapter+projector: stage 2 as XTuner and LLaVA do it. projector: stage 1, the projector alone, no adapter."""
    projector: str = ""
    """Begin with the projector of this run, or of a .safetensors file, instead of the model's."""

    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj", "gate_proj")
    """Layers of the language model that are adapted; `all-linear` for every one."""
    vision_target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
    """Layers of the vision tower that are adapted; `all-linear` for every one, `none` for none."""
    vision_rank: int = 64
    """Rank of the adapter in the vision tower."""
    vision_alpha: float = 16
    """In the vision tower the update is scaled by vision_alpha / vision_rank."""
    vision_mixer: bool = True
    """Mix in the vision tower, too; without, its adapter is a plain LoRA."""

    quantize: Literal["none", "nf4", "int8"] = "none"
    """Keep the weights of the language model in 4 or 8 bits. Vision tower, projector and head are never quantised."""
    double_quantize: bool = True
    """With nf4, quantise the constants of the quantisation as well."""
    pad_to_square: bool = True
    """Pad images to squares with the mean colour, as LLaVA 1.5 does, instead of cutting their edges off."""
    group_by_modality: bool = True
    """Batches of rows of like length, with images or without, never both."""
    workers: int = 0
    """Processes that read images while the model computes."""


def check(config: VisionLanguageTrainConfig) -> None:
    """Raise ConfigError that lists every value, or pair of values, that cannot be used."""
    positive = ("vision_rank", "vision_alpha", "max_tokens", "max_pixels")
    found = problems(config, positive=positive, not_negative=("workers",))
    if not config.data:
        found.append("there is no training data: give files with --data")
    if not config.target_modules:
        found.append("target_modules is empty: name at least one layer, or all-linear")
    if not config.vision_target_modules:
        found.append("vision_target_modules is empty: name at least one layer, all-linear, or none")
    if config.method == "full" and config.quantize != "none":
        found.append(f"method full cannot train weights that are quantised to {config.quantize}: choose another method")
    if config.method == "full" and config.train != BOTH:
        found.append(f"method full trains every part: leave out train = {config.train!r}")
    if config.method.startswith("file:") and config.train == BOTH:
        found.append("a file says itself what is trained beside the adapter: give --train adapter")
    refuse(found)
