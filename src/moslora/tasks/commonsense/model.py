"""The base model of a run: where it is, its identity, its tokenizer and its precision."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import runs
from ...errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

EMBEDDED = "embedded"


def locate(model: str) -> str:
    """A folder or hub id that transformers can load; `embedded` becomes the folder of the small model."""
    if model == EMBEDDED:
        from ...embedded import model_folder

        return str(model_folder())
    return model


def identity(model: str, config: "PretrainedConfig") -> dict[str, Any]:
    """What a run records of its base model: hashes of a local folder, the commit of a hub model."""
    place = Path(locate(model))
    if place.is_dir():
        return {"name": model, **runs.fingerprint(place)}
    return {"name": model, "commit": getattr(config, "_commit_hash", None)}


def load_config(model: str, trust_remote_code: bool = False) -> "PretrainedConfig":
    """The model's config alone.

    Raises:
        ConfigError: there is no such model, or it is of a kind transformers does not know.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(locate(model), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"Cannot read a model config from {model!r}: {error} Expected a folder with config.json, a hub id, or "
            f"{EMBEDDED}."
        ) from error


def load_tokenizer(model: str, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """The tokenizer, with a padding token that is not the end-of-text token.

    Raises:
        ConfigError: no tokenizer there, or one without an end-of-text token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(locate(model), trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot load a tokenizer from {model!r}: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"The tokenizer of {model!r} has no end-of-text token: set eos_token in its config.")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        # Token 0 as the authors do. Padding is hidden from attention and loss, so which token it is does not matter,
        # as long as the end-of-text token keeps its meaning.
        tokenizer.pad_token_id = 0 if tokenizer.eos_token_id != 0 else 1
    return tokenizer


def load_base(model: str, dtype: "torch.dtype", trust_remote_code: bool = False) -> "PreTrainedModel":
    """The base model with its weights, on the CPU.

    Raises:
        ConfigError: there are no weights, or transformers does not know the kind of model.
    """
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        return AutoModelForCausalLM.from_pretrained(locate(model), dtype=dtype, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot load the model {model!r}: {error}") from error


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


def trained_folder(run: Path, record: dict[str, Any]) -> Path:
    """What a run trained: RUN/adapter, or RUN/model where every parameter of the model was trained.

    Args:
        run: the run folder.
        record: its run.json.
    """
    return run / ("model" if record["config"]["method"] == "full" else "adapter")


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


def resolve_dtype(name: str) -> "torch.dtype":
    """The dtype of a `dtype` setting; `auto` is bfloat16 on a GPU that has it, else float32."""
    import torch

    if name == "auto":
        on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if on_gpu else torch.float32
    return getattr(torch, name)
