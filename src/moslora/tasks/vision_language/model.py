"""The LLaVA-shaped model of a run: where it is, how it is loaded, and its three parts."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from .. import models
from ..models import EMBEDDED, loading, trained_folder
from .projector import PROJECTOR_FILE, load_projector
from .remote import admit_language_model

if TYPE_CHECKING:
    import torch
    from transformers import BitsAndBytesConfig, PretrainedConfig, PreTrainedModel, ProcessorMixin

TOWER, LANGUAGE_MODEL = "vision_tower", "language_model"
# Only the language model is quantised, as by XTuner: the other parts are small. Regexes of whole names of modules.
NEVER_QUANTIZED = (r"(.*\.)?vision_tower", r"(.*\.)?multi_modal_projector", r"(.*\.)?lm_head")


def locate(model: str) -> str:
    """A folder or hub id that transformers can load; `embedded` becomes the folder of the small model."""
    if model == EMBEDDED:
        from ...embedded import vision_model_folder

        return str(vision_model_folder())
    return model


def identity(model: str) -> dict[str, Any]:
    """`models.identity` of a vision-language model."""
    return models.identity(model, locate(model))


def load_config(model: str, trust_remote_code: bool = False) -> "PretrainedConfig":
    """`models.load_config` of a model with a vision and a language part.

    Raises:
        ConfigError: there is no such model, it has not both parts, or it needs code that may not be run.
    """
    admit_language_model(locate(model), trust_remote_code)
    config = models.load_config(locate(model), trust_remote_code)
    if not hasattr(config, "vision_config") or not hasattr(config, "text_config"):
        raise ConfigError(
            f"{model!r} is a {config.model_type} model without a vision part: expected one of LLaVA's kind, with "
            "vision_config and text_config in its config.json."
        )
    return config


def load_processor(model: str, trust_remote_code: bool = False) -> "ProcessorMixin":
    """Tokenizer and image processor, the latter the one that needs Pillow and no torchvision.

    Raises:
        ConfigError: there is none, or one without an image processor, an image token or a chat template.
    """
    from transformers import AutoProcessor

    with loading("a processor", model):
        processor = AutoProcessor.from_pretrained(locate(model), backend="pil", trust_remote_code=trust_remote_code)
    if not hasattr(processor, "image_processor") or not hasattr(processor, "image_token"):
        raise ConfigError(
            f"{model!r} has a {type(processor).__name__}: expected a processor of images and texts, such as "
            "LlavaProcessor."
        )
    tokenizer = processor.tokenizer
    if tokenizer.pad_token_id is None:  # hidden from attention and loss, so which token it is does not matter
        tokenizer.pad_token_id = tokenizer.eos_token_id
    return processor


def load_base(
    model: str,
    dtype: "torch.dtype",
    *,
    quantize: str = "none",
    double_quantize: bool = True,
    trust_remote_code: bool = False,
) -> "PreTrainedModel":
    """The base model with its weights: on the CPU, or where it will be used if it is quantised.

    Args:
        model: folder, hub id or `embedded`.
        dtype: of the weights that are not quantised, and of the computation.
        quantize: none, nf4 or int8; of the layers of the language model.
        double_quantize: with nf4, quantise the constants of the quantisation as well.
        trust_remote_code: run Python code that comes with the model.

    Raises:
        ConfigError: there are no weights, transformers does not know the kind of model, or bitsandbytes is missing.
    """
    from transformers import AutoModelForImageTextToText
    from transformers.utils import logging

    logging.disable_progress_bar()
    admit_language_model(locate(model), trust_remote_code)
    settings: dict[str, Any] = {"dtype": dtype, "trust_remote_code": trust_remote_code}
    if quantize != "none":
        settings |= {"quantization_config": _quantization(quantize, dtype, double_quantize), "device_map": _device()}
    with loading("the model", model):
        return AutoModelForImageTextToText.from_pretrained(locate(model), **settings)


def _quantization(kind: str, dtype: "torch.dtype", double: bool) -> "BitsAndBytesConfig":
    import importlib.util

    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise ConfigError(f"quantize {kind} needs bitsandbytes: pip install 'moslora[quantized]'.")
    skipped = {"llm_int8_skip_modules": list(NEVER_QUANTIZED)}
    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, **skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=double,
        bnb_4bit_compute_dtype=dtype,
        **skipped,
    )


def _device() -> dict[str, Any]:
    """Everything on the one device of this process: bitsandbytes cannot move 8-bit weights later."""
    import torch

    return {"": int(os.environ.get("LOCAL_RANK", "0")) if torch.cuda.is_available() else "cpu"}


def empty_model(config: "PretrainedConfig", trust_remote_code: bool = False, **settings: Any) -> "PreTrainedModel":
    """The base model with random weights, or with none inside `torch.device("meta")`.

    Args:
        config: the model's config.
        trust_remote_code: run Python code that comes with the model.
        settings: passed on to `from_config`.

    Raises:
        ConfigError: the config is not that of a vision-language model.
    """
    from transformers import AutoModelForImageTextToText

    try:
        return AutoModelForImageTextToText.from_config(config, trust_remote_code=trust_remote_code, **settings)
    except ValueError as error:
        raise ConfigError(f"No vision-language model fits the config: {error}") from error


def load_finished(
    run: Path, record: dict[str, Any], dtype: "torch.dtype", quantize: str | None = None
) -> "PreTrainedModel":
    """The model that a run trained: the base with its adapter and projector, or the model with all its new weights.

    Args:
        run: folder of a finished run.
        record: its run.json.
        dtype: of the base; adapters stay as they were saved.
        quantize: of the base: none, nf4 or int8; None is as in training.

    Returns:
        the model, on the CPU, or where it will be used if it is quantised.

    Raises:
        ConfigError: the base model, or the trained one, cannot be loaded.
    """
    from peft import PeftModel

    trained = record["config"]
    folder, trust = trained_folder(run, record), trained["trust_remote_code"]
    if folder.name == "model":
        return load_base(str(folder), dtype, trust_remote_code=trust)
    base = load_base(
        trained["model"],
        dtype,
        quantize=trained["quantize"] if quantize is None else quantize,
        double_quantize=trained["double_quantize"],
        trust_remote_code=trust,
    )
    if (run / PROJECTOR_FILE).exists():
        load_projector(base, run / PROJECTOR_FILE)
    return base if trained["train"] == "projector" else PeftModel.from_pretrained(base, str(folder))
