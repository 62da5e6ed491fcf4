"""Settings of subject-driven generation. Their docstrings are the help of the command-line flags."""

import dataclasses
from pathlib import Path
from typing import Literal

from ..settings import AdapterSettings, problems, refuse


@dataclasses.dataclass(frozen=True, kw_only=True)
class PictureConfig:
    """Which photographs, and how they are cut."""

    images: str = ""
    """Folder with a few photographs of the subject."""
    prompt: str = ""
    """What they show, with a rare word for the subject before its class: "a photo of sks dog"."""
    class_prompt: str = ""
    """Prior preservation: what pictures of the class show, "a photo of a dog". Nothing turns it off."""
    class_images: str = ""
    """Folder of pictures of the class; RUN/class-images unless given. The base model draws those that are missing."""
    class_count: int = 100
    """Pictures of the class."""
    resolution: int = 1024
    """A picture is scaled and cut to about resolution x resolution pixels."""
    buckets: bool = True
    """Keep the aspect ratio of a picture, nearly; otherwise cut a square."""
    crop: Literal["center", "random"] = "center"
    """Where a picture is cut; random draws one place per picture and run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubjectTrainConfig(PictureConfig, AdapterSettings):
    """Settings that decide the result."""

    model: str
    """Folder of an SDXL, SD 1.5 or SD 2.1 pipeline, its hub id, or `embedded` for the small one of this package."""
    vae: str = ""
    """Folder or hub id of another VAE, such as madebyollin/sdxl-vae-fp16-fix."""

    rank: int = 4
    """Rank r of the adapter."""
    alpha: float = 4
    """The update is scaled by alpha / rank."""
    dropout: float = 0.0
    """Dropout before the adapter."""
    target_modules: tuple[str, ...] = ("to_q", "to_k", "to_v", "to_out.0")
    """Layers of the UNet that are adapted, convolutions among them if named; `all-linear` for every linear one."""
    start_from: str = ""
    """Folder of an adapter of the UNet to go on with, such as one of `moslora mix`; its ranks and layers hold then."""
    train: Literal["all", "mixer-blocks"] = "all"
    """mixer-blocks: of a mix, only the blocks of the mixers between its adapters, everything else stays to the bit."""
    train_text_encoders: bool = False
    """Adapt the text encoders too."""
    text_target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "out_proj")
    """Layers of the text encoders that are adapted."""
    text_learning_rate: float = 5e-6
    """Peak learning rate of the text encoders' adapters."""

    max_steps: int = 500
    """Optimizer steps."""
    batch_size: int = 4
    """Photographs per optimizer step, over all processes; as many pictures of the class join them."""
    micro_batch_size: int = 1
    """Pictures per forward pass at most. The loss is that of the whole batch, however it is split."""
    learning_rate: float = 1e-4
    """Peak learning rate of AdamW."""
    optimizer: Literal["adamw", "adamw-8bit"] = "adamw"
    """adamw-8bit: bitsandbytes' AdamW, whose states take a quarter of the memory."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0."""
    lr_scheduler: str = "constant"
    """Schedule after the warm-up, by its transformers name."""
    weight_decay: float = 1e-4
    """Weight decay of AdamW."""

    prior_weight: float = 1.0
    """Weight of the loss on pictures of the class."""
    min_snr_gamma: float = 0.0
    """Min-SNR weighting of the time steps (arXiv:2303.09556), which advises 5; 0 weighs them equally."""
    noise_offset: float = 0.0
    """Share of a constant per channel in the noise, which lets pictures become very dark or bright; 0 for none."""

    validation_prompts: tuple[str, ...] = ()
    """Draw these during training, from the same noise each time, into RUN/validation."""
    validation_steps: int = 100
    """Steps between two such drawings."""
    validation_inference_steps: int = 30
    """Denoising steps of each."""
    guidance: float = 5.0
    """Classifier-free guidance of pictures that are drawn during training."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SubjectGenerateConfig:
    """Settings of drawing pictures with trained runs. Steps and guidance are those of the paper's authors."""

    run: tuple[Path, ...]
    """Folders of finished runs of `moslora train subject`."""
    prompts: str = "object"
    """object or live: the list of this package; or a file of one prompt a line, {} standing for the subject, or of
    DreamBooth's prompts_and_classes.txt form, as FILE:object or FILE:live."""
    subject: str = ""
    """What replaces {}: the rare word and the class, "sks dog". Taken from the run's prompt unless given."""
    seeds: tuple[int, ...] = (0, 1, 2, 3)
    """One picture per prompt and seed. The noise depends on both and on nothing else."""
    steps: int = 50
    """Denoising steps."""
    guidance: float = 5.0
    """Classifier-free guidance; 1 turns it off."""
    negative_prompt: str = ""
    """What the pictures shall not show."""
    size: str = ""
    """Pixels, as 1024 or WIDTHxHEIGHT; the resolution of the run unless given."""
    batch_size: int = 1
    """Pictures at a time."""
    limit: int = 0
    """Only the first prompts; 0 takes all."""
    base_only: bool = False
    """Draw with the base model alone, into RUN/images-base."""
    into: str = ""
    """Folder of each run that is filled; unless given, `images`, or `images-base` with `base_only`."""
    sheet: Path | None = None
    """New picture that shows all runs side by side: a row per prompt, a column per run, first seed."""


def check(config: SubjectTrainConfig) -> None:
    """Raise ConfigError that lists every value, or pair of values, that cannot be used."""
    positive = ("max_steps", "resolution", "class_count", "text_learning_rate", "validation_steps")
    found = problems(
        config,
        positive=(*positive, "validation_inference_steps"),
        not_negative=("prior_weight", "min_snr_gamma", "noise_offset", "guidance"),
    )
    if not config.images:
        found.append("images is empty: give the folder of the photographs")
    if not config.prompt:
        found.append('prompt is empty: say what the photographs show, for example "a photo of sks dog"')
    if not config.target_modules:
        found.append("target_modules is empty: name at least one layer, or all-linear")
    if config.train_text_encoders and not config.text_target_modules:
        found.append("text_target_modules is empty: name at least one layer, or leave train_text_encoders out")
    if config.start_from and not Path(config.start_from).is_dir():
        found.append(f"start_from is {config.start_from}: there is no such folder")
    if config.start_from and config.train_text_encoders:
        found.append("start_from is an adapter of the UNet: leave train_text_encoders out")
    if config.train == "mixer-blocks" and not config.start_from:
        found.append("train is mixer-blocks: name the folder that `moslora mix` has written with start_from")
    if config.class_images and not config.class_prompt:
        found.append("class_images needs a class_prompt that says what they show")
    if config.method == "full":
        found.append(
            "method is full: only adapters are trained here; choose lora, moslora or another of docs/methods.md"
        )
    refuse(found)
