"""The diffusion pipeline of a run: where it is, how it is loaded, and how it encodes and decodes."""

import json
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from PIL import Image
from torch import Tensor, nn

from ... import runs
from ...embedded import diffusion_model_folder
from ...errors import ConfigError
from ..models import EMBEDDED, loading

if TYPE_CHECKING:
    from diffusers import DDPMScheduler, DiffusionPipeline

PIPELINES = ("StableDiffusionXLPipeline", "StableDiffusionPipeline")
UNET, TEXT_ENCODERS = "unet", ("text_encoder", "text_encoder_2")
# What the UNet is told of a text: of SDXL both, of Stable Diffusion 1 and 2 the first alone.
Embeddings = tuple[Tensor, Tensor | None]  # (1, tokens, width), (1, pooled width)


def locate(model: str) -> Path:
    """The folder of a pipeline; a hub id is fetched into the hub's cache, `embedded` is that of the small pipeline.

    Raises:
        ConfigError: there is no such pipeline, or it is of another kind.
    """
    if model == EMBEDDED:
        return diffusion_model_folder()
    folder = Path(model)
    if not folder.is_dir():
        from diffusers import DiffusionPipeline

        try:
            folder = Path(DiffusionPipeline.download(model))
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"Cannot find the pipeline {model!r}: {error} Expected a folder with model_index.json, a hub id, or "
                f"{EMBEDDED}."
            ) from error
    return folder


def kind(folder: Path) -> str:
    """Class of a pipeline.

    Raises:
        ConfigError: the folder holds no pipeline, or one of another kind than `PIPELINES`.
    """
    path = folder / "model_index.json"
    try:
        name = str(json.loads(path.read_text(encoding="utf-8")).get("_class_name"))
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot read {path}: {error}. Expected the folder of a diffusers pipeline.") from error
    if name not in PIPELINES:
        raise ConfigError(f"{folder} is a {name}: expected {' or '.join(PIPELINES)} (SDXL, SD 1.5 or SD 2.1).")
    return name


def identity(model: str, folder: Path, vae: str = "") -> dict[str, Any]:
    """What a run records of its pipeline: the name, and a hash of every part with its files."""
    parts = sorted(path for path in folder.iterdir() if path.is_dir() and (any(path.glob("*.json"))))
    found: dict[str, Any] = {"name": model, **{part.name: runs.fingerprint(part) for part in parts}}
    if vae:
        place = Path(vae)
        found["vae"] = {"name": vae, **(runs.fingerprint(place) if place.is_dir() else {})}
    return found


def load_pipeline(folder: Path, dtype: torch.dtype, vae: str = "") -> "DiffusionPipeline":
    """The pipeline with all its weights frozen, on the CPU.

    Its VAE is float32 where its config says that 16 bits overflow, as that of SDXL 1.0 does.

    Args:
        folder: of the pipeline.
        dtype: of UNet and text encoders.
        vae: folder or hub id of another VAE.

    Raises:
        ConfigError: there are no weights, or files of another kind.
    """
    diffusers = quiet_diffusers()
    pipeline_class = getattr(diffusers, kind(folder))
    extra = {} if "XL" in pipeline_class.__name__ else {"safety_checker": None, "requires_safety_checker": False}
    with loading("the pipeline", str(folder)):
        pipeline = pipeline_class.from_pretrained(folder, dtype=dtype, **extra)
        if vae:
            pipeline.register_modules(vae=_load_vae(diffusers, dtype, vae))
    if pipeline.vae.config.force_upcast and dtype != torch.float32:
        # Read again: its weights have been rounded.
        place = (vae,) if vae else (folder, "vae")
        pipeline.register_modules(vae=_load_vae(diffusers, torch.float32, *place))
    pipeline.set_progress_bar_config(disable=True)
    for part in parts(pipeline).values():
        part.requires_grad_(False)
    return pipeline


def _load_vae(diffusers: ModuleType, dtype: torch.dtype, place: str | Path, subfolder: str | None = None) -> nn.Module:
    return diffusers.AutoencoderKL.from_pretrained(place, subfolder=subfolder, dtype=dtype)


def quiet_diffusers() -> ModuleType:
    """diffusers, whose import makes transformers complain of a missing torchvision that nothing here needs."""
    import transformers.utils.logging as transformers_logging

    verbosity = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        import diffusers
        import diffusers.utils.logging as diffusers_logging

        diffusers.StableDiffusionPipeline, diffusers.StableDiffusionXLPipeline  # noqa: B018 - imported when named
    finally:
        transformers_logging.set_verbosity(verbosity)
    diffusers_logging.disable_progress_bar()
    return diffusers


def cast(network: nn.Module, dtype: torch.dtype) -> nn.Module:
    """The network in this dtype. diffusers' own way warns of layers, none, that it would rather leave in float32."""
    return nn.Module.to(network, dtype)


def parts(pipeline: "DiffusionPipeline") -> dict[str, nn.Module]:
    """The networks of a pipeline by name."""
    return {name: part for name, part in pipeline.components.items() if isinstance(part, nn.Module)}


def text_encoders(pipeline: "DiffusionPipeline") -> dict[str, nn.Module]:
    """The text encoders by name, one or two."""
    return {name: part for name, part in parts(pipeline).items() if name in TEXT_ENCODERS}


def is_sdxl(pipeline: "DiffusionPipeline") -> bool:
    """Whether the UNet takes a pooled text and micro-conditioning."""
    return getattr(pipeline, "text_encoder_2", None) is not None


def size_multiple(pipeline: "DiffusionPipeline") -> int:
    """Sides of pictures must be multiples of this number of pixels for the UNet to halve their latents."""
    return pipeline.vae_scale_factor * 2 ** (len(pipeline.unet.config.block_out_channels) - 1)


def training_scheduler(pipeline: "DiffusionPipeline") -> "DDPMScheduler":
    """The noise schedule that the pipeline was trained with.

    Raises:
        ConfigError: the network predicts something else than noise or v.
    """
    from diffusers import DDPMScheduler

    config = pipeline.scheduler.config
    prediction = config.get("prediction_type", "epsilon")
    if "beta_start" not in config or prediction not in ("epsilon", "v_prediction"):
        raise ConfigError(
            f"The scheduler {type(pipeline.scheduler).__name__} (prediction type {prediction}) is none of those that "
            "can be trained here: expected betas, and a network that predicts epsilon or v."
        )
    return DDPMScheduler.from_config(config)


def encode_prompt(pipeline: "DiffusionPipeline", prompt: str, device: torch.device) -> Embeddings:
    """What the text encoders make of a prompt; with gradients, where enabled."""
    encoded = pipeline.encode_prompt(prompt, device=device, num_images_per_prompt=1, do_classifier_free_guidance=False)
    return (encoded[0], encoded[2]) if is_sdxl(pipeline) else (encoded[0], None)


class LatentDistribution(NamedTuple):
    """What the VAE makes of a picture: each latent is normally distributed."""

    mean: Tensor  # (channels, height / factor, width / factor), scaled as the UNet expects
    std: Tensor  # the same

    def sample(self, noise: Tensor) -> Tensor:
        """A latent picture from standard normal noise of the same shape."""
        return self.mean + self.std * noise


def _statistics(vae: nn.Module) -> tuple[Tensor | float, Tensor | float]:
    """Mean and factor by which latents are normalised: one number, or one for each channel."""
    config: Any = vae.config
    factor = config.scaling_factor
    if getattr(config, "latents_mean", None) is None or getattr(config, "latents_std", None) is None:
        return 0.0, factor
    mean, std = (torch.tensor(each).view(-1, 1, 1) for each in (config.latents_mean, config.latents_std))
    return mean, factor / std


@torch.no_grad()
def encode_pixels(pipeline: "DiffusionPipeline", pixels: Tensor) -> LatentDistribution:
    """The distribution of a picture's latents, on the CPU in float32.

    Args:
        pipeline: whose VAE encodes.
        pixels: (3, height, width) in [-1, 1].
    """
    vae: Any = pipeline.vae
    encoded = vae.encode(pixels[None].to(vae.device, vae.dtype)).latent_dist
    shift, factor = _statistics(vae)
    mean, std = encoded.mean[0].float().cpu(), encoded.std[0].float().cpu()
    return LatentDistribution((mean - shift) * factor, std * factor)


@torch.no_grad()
def decode_latents(pipeline: "DiffusionPipeline", latents: Tensor) -> list[Image.Image]:
    """The pictures of latents (batch, channels, height, width), in the VAE's own dtype, which 16 bits cannot harm."""
    vae: Any = pipeline.vae
    shift, factor = _statistics(vae)
    plain = latents.float().cpu() / factor + shift
    decoded = vae.decode(plain.to(vae.device, vae.dtype), return_dict=False)[0]
    return pipeline.image_processor.postprocess(decoded.float(), output_type="pil")


def draw(
    pipeline: "DiffusionPipeline",
    prompts: list[str],
    seeds: list[int],
    *,
    width: int,
    height: int,
    steps: int,
    guidance: float,
    negative_prompt: str = "",
) -> list[Image.Image]:
    """One picture per prompt.

    Args:
        pipeline: with or without adapters.
        prompts: one batch.
        seeds: of the noise of each picture. It is drawn on the CPU, so it depends on nothing else.
        width: pixels.
        height: pixels.
        steps: denoising steps.
        guidance: classifier-free guidance; 1 turns it off.
        negative_prompt: of all pictures.
    """
    latents = pipeline(
        prompt=prompts,
        negative_prompt=[negative_prompt] * len(prompts) if negative_prompt else None,
        generator=[torch.Generator().manual_seed(seed) for seed in seeds],
        width=width,
        height=height,
        num_inference_steps=steps,
        guidance_scale=guidance,
        output_type="latent",
    ).images
    return decode_latents(pipeline, latents)
