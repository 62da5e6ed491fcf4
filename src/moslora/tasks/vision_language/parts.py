"""What a LLaVA model is put together from: configs of both models, tokenizer, image processor."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError, UnsupportedError
from ..models import loading

if TYPE_CHECKING:
    from transformers import LlavaProcessor, PretrainedConfig

IMAGE_TOKEN, PAD_TOKEN = "<image>", "<pad>"


@dataclass(frozen=True)
class ImageSettings:
    """How an image becomes tokens.

    Attributes:
        image_size: pixels of a side.
        patch_size: pixels of a side.
        strategy: "default" leaves out the class token, "full" keeps it.
    """

    image_size: int
    patch_size: int
    strategy: str

    @property
    def tokens(self) -> int:
        """Tokens of an image."""
        return (self.image_size // self.patch_size) ** 2 + (self.strategy == "full")


def language_model_config(folder: Path) -> "PretrainedConfig":
    """The config of a causal language model.

    Raises:
        ConfigError: there is none, or it is of another kind of model.
        UnsupportedError: the model is Python code of its own.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    raw = _raw_config(folder)
    kind = raw.get("model_type", "none")
    if kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        if "auto_map" in raw:
            raise UnsupportedError(
                f"{folder}: the {kind} model is Python code that comes with its weights; transformers builds the "
                "language model inside a LLaVA without such code, whatever is allowed. InternLM2 is such a model: take "
                "a copy of it in Llama's form, or InternLM3, which is part of transformers."
            )
        raise ConfigError(f"{folder}: found a {kind} model, expected a causal language model.")
    return AutoConfig.from_pretrained(folder)


def vision_config(folder: Path) -> "PretrainedConfig":
    """The config of the vision part of CLIP.

    Raises:
        ConfigError: there is none, or it is of another kind of model.
    """
    from transformers import CLIPConfig, CLIPVisionConfig

    kind = _raw_config(folder).get("model_type")
    if kind == "clip":
        return CLIPConfig.from_pretrained(folder).vision_config
    if kind != "clip_vision_model":
        raise ConfigError(f"{folder}: found a {kind} model, expected CLIP (model_type clip or clip_vision_model).")
    return CLIPVisionConfig.from_pretrained(folder)


def make_processor(language_model: Path, vision_model: Path, images: ImageSettings) -> "LlavaProcessor":
    """Tokenizer with `<image>` and a padding token, its chat template, and CLIP's image processor without torchvision.

    Raises:
        ConfigError: a folder has no tokenizer or no image processor, or images would get another size.
    """
    from transformers import AddedToken, AutoTokenizer, LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    with loading("a tokenizer", str(language_model)):
        tokenizer = AutoTokenizer.from_pretrained(language_model)
    if IMAGE_TOKEN not in tokenizer.get_vocab():
        tokenizer.add_tokens(AddedToken(IMAGE_TOKEN, special=True, normalized=False), special_tokens=True)
    if tokenizer.pad_token is None:
        tokenizer.add_special_tokens({"pad_token": PAD_TOKEN})
    if not (vision_model / "preprocessor_config.json").is_file():
        raise ConfigError(
            f"{vision_model}: found no preprocessor_config.json, expected that of CLIP's image processor."
        )
    pictures = CLIPImageProcessorPil.from_pretrained(vision_model)
    crop = (pictures.crop_size["height"], pictures.crop_size["width"])
    if crop != (images.image_size, images.image_size):
        raise ConfigError(
            f"{vision_model}: the image processor makes images of {crop[0]} x {crop[1]} pixels, and the model takes "
            f"{images.image_size} x {images.image_size}: take preprocessor_config.json of the same model."
        )
    return LlavaProcessor(
        image_processor=pictures,
        tokenizer=tokenizer,
        patch_size=images.patch_size,
        vision_feature_select_strategy=images.strategy,
        num_additional_image_tokens=1,  # the class token
        chat_template=tokenizer.chat_template,
    )


def _raw_config(folder: Path) -> dict[str, Any]:
    path = folder / "config.json"
    if not path.is_file():
        raise ConfigError(f"{folder}: found no config.json, expected a model folder: check the path.")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{path}: found no JSON ({error}): copy the folder again.") from None
