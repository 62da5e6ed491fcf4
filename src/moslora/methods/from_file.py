"""Any PEFT method, from an adapter_config.json."""

import dataclasses
import difflib
import json
from pathlib import Path
from typing import Any

from peft import PeftConfig
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

from ..errors import ConfigError

# What names other files or code to load.
_REMOTE = (
    "auto_mapping",
    "arrow_config",
    "adapters",
    "prompt_tuning_init_state_dict_path",
    "tokenizer_name_or_path",
)
_PREPARED_INITS = ("eva", "corda", "lora_ga")  # starts that need a pass over data that PEFT leaves to its caller
_ABOUT_THE_BASE = {"base_model_name_or_path": None, "revision": None, "inference_mode": False}


def read_config(path: str | Path, task_type: str | None = "CAUSAL_LM") -> PeftConfig:
    """The PEFT config in a file, for training on whatever base model is given.

    Args:
        path: a JSON file as PEFT saves it beside an adapter. What it says of its base model is left out.
        task_type: PEFT's task; None when the model is not one of transformers' tasks.

    Raises:
        ConfigError: the file is missing or no JSON object; an unknown peft_type, key or value; a config that would
            load other files or code; or a start that needs data.
    """
    path = Path(path)
    settings = _read_object(path)
    kind = settings.get("peft_type")
    if not isinstance(kind, str) or kind not in PEFT_TYPE_TO_CONFIG_MAPPING:
        known = ", ".join(sorted(str(getattr(each, "value", each)) for each in PEFT_TYPE_TO_CONFIG_MAPPING))
        raise ConfigError(f"{path}: found peft_type {kind!r}, expected one of {known}.")
    for key in _REMOTE:
        if settings.get(key):
            raise ConfigError(f"{path}: {key} would load other files or code, which is refused: remove it.")
    if settings.get("init_lora_weights") in _PREPARED_INITS:
        raise ConfigError(
            f"{path}: init_lora_weights {settings['init_lora_weights']!r} needs a pass over data before training, "
            "which is not made here: choose another start."
        )
    if settings.get("task_type") not in (None, task_type):
        raise ConfigError(f"{path}: found task_type {settings['task_type']!r}, expected {task_type or 'none'}.")
    config_class = PEFT_TYPE_TO_CONFIG_MAPPING[kind]
    _refuse_unknown_keys(path, config_class, settings)
    known_base = {key: value for key, value in _ABOUT_THE_BASE.items() if key in settings}
    try:
        return config_class(**{**settings, **known_base, "task_type": task_type})
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: PEFT refuses this config: {error}") from error


def _read_object(path: Path) -> dict[str, Any]:
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"Cannot read {path} ({error.strerror}): expected an adapter_config.json of PEFT.") from error
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not JSON: {error}. Expected an adapter_config.json of PEFT.") from error
    if not isinstance(settings, dict):
        raise ConfigError(f"{path} holds a {type(settings).__name__}, expected an object with peft_type.")
    return settings


def _refuse_unknown_keys(path: Path, config_class: type[PeftConfig], settings: dict[str, Any]) -> None:
    """PEFT only warns of these, and leaves them out."""
    known = {field.name for field in dataclasses.fields(config_class)}
    for key in sorted(settings.keys() - known):
        close = difflib.get_close_matches(key, known, 1)
        hint = f" Did you mean {close[0]!r}?" if close else " Remove it, or install a PEFT that knows it."
        raise ConfigError(f"{path}: {config_class.__name__} has no setting {key!r}.{hint}")
