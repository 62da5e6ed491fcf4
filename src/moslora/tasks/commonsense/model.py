"""The causal language model of a run: where it is, and how it is loaded."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...errors import ConfigError
from .. import models
from ..models import EMBEDDED, loading, trained_folder

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase


def locate(model: str) -> str:
    """A folder or hub id that transformers can load; `embedded` becomes the folder of the small model."""
    if model == EMBEDDED:
        from ...embedded import model_folder

        return str(model_folder())
    return model


def identity(model: str) -> dict[str, Any]:
    """`models.identity` of a language model."""
    return models.identity(model, locate(model))


def load_config(model: str, trust_remote_code: bool = False) -> "PretrainedConfig":
    """`models.load_config` of a language model."""
    return models.load_config(locate(model), trust_remote_code)


def load_tokenizer(model: str, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """`models.load_tokenizer` of a language model."""
    return models.load_tokenizer(locate(model), trust_remote_code)


def load_base(model: str, dtype: "torch.dtype", trust_remote_code: bool = False) -> "PreTrainedModel":
    """The base model with its weights, on the CPU.

    Raises:
        ConfigError: there are no weights, or transformers does not know the kind of model.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    with loading("the model", model):
        return AutoModelForCausalLM.from_pretrained(locate(model), dtype=dtype, trust_remote_code=trust_remote_code)


def empty_model(config: "PretrainedConfig", trust_remote_code: bool = False, **settings: Any) -> "PreTrainedModel":
    """The base model with random weights, or with none inside `torch.device("meta")`.

    Args:
        config: the model's config.
        trust_remote_code: run Python code that comes with the model.
        settings: passed on to `from_config`.

    Raises:
        ConfigError: the config is not that of a causal language model.
    """
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code, **settings)
    except ValueError as error:
        raise ConfigError(f"No causal language model fits the config: {error}") from error


def load_finished(run: Path, record: dict[str, Any], dtype: "torch.dtype") -> "PreTrainedModel":
    """The model that a run trained, on the CPU: the base with its adapter, or the model with all its new weights.

    Args:
        run: folder of a finished run.
        record: its run.json.
        dtype: of the base; adapters stay as they were saved.

    Raises:
        ConfigError: the base model, or the trained one, cannot be loaded.
    """
    from peft import PeftModel

    trained = record["config"]
    folder = trained_folder(run, record)
    if folder.name == "model":
        return load_base(str(folder), dtype, trained["trust_remote_code"])
    base = load_base(trained["model"], dtype, trained["trust_remote_code"])
    return PeftModel.from_pretrained(base, str(folder))
