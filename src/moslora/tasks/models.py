"""What is known of a base model before and after training, whatever kind of model it is."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import runs
from ..errors import ConfigError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

EMBEDDED = "embedded"  # in the place of a folder or hub id: the small model of the task that comes with the package


def identity(model: str, place: str, config: "PretrainedConfig") -> dict[str, Any]:
    """What a run records of its base model: hashes of a local folder, the commit of a hub model.

    Args:
        model: as the user calls it.
        place: the folder or hub id that it stands for.
        config: the model's config.
    """
    if Path(place).is_dir():
        return {"name": model, **runs.fingerprint(Path(place))}
    return {"name": model, "commit": getattr(config, "_commit_hash", None)}


def load_config(place: str, trust_remote_code: bool = False) -> "PretrainedConfig":
    """The config alone of one of transformers' models.

    Raises:
        ConfigError: there is no such model, or it is of a kind transformers does not know.
    """
    from transformers import AutoConfig

    try:
        return AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, json.JSONDecodeError) as error:
        raise ConfigError(
            f"Cannot read a model config from {place!r}: {error} Expected a folder with config.json, a hub id, or "
            f"{EMBEDDED}."
        ) from error


def load_tokenizer(place: str, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """The tokenizer, with a padding token that is not the end-of-text token.

    Raises:
        ConfigError: no tokenizer there, or one without an end-of-text token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as error:
        raise ConfigError(f"Cannot load a tokenizer from {place!r}: {error}") from error
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"The tokenizer of {place!r} has no end-of-text token: set eos_token in its config.")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        # Token 0 as the authors do. Padding is hidden from attention and loss, so which token it is does not matter,
        # as long as the end-of-text token keeps its meaning.
        tokenizer.pad_token_id = 0 if tokenizer.eos_token_id != 0 else 1
    return tokenizer


def trained_folder(run: Path, record: dict[str, Any]) -> Path:
    """What a run trained: RUN/adapter, or RUN/model where every parameter of the model was trained.

    Args:
        run: the run folder.
        record: its run.json.
    """
    return run / ("model" if record["config"]["method"] == "full" else "adapter")


def resolve_dtype(name: str) -> "torch.dtype":
    """The dtype of a `dtype` setting; `auto` is bfloat16 on a GPU that has it, else float32."""
    import torch

    if name == "auto":
        on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if on_gpu else torch.float32
    return getattr(torch, name)
