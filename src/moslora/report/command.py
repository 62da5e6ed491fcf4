"""The command that repeats a study, from what study.json says of it."""

import json
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# Flag of `moslora compare commonsense` -> setting in study.json, for the settings that have a flag of their own.
_FLAGS = {
    "model": "model",
    "data": "data",
    "methods": "methods",
    "learning-rates": "learning_rates",
    "seeds": "seeds",
    "train-fractions": "train_fractions",
    "validation-size": "validation_questions",
    "split-seed": "split_seed",
}


def study_command(study: Mapping[str, Any], folder: Path) -> str:
    """A line for a shell. Every setting is given, so that it means the same under other defaults.

    Args:
        study: content of study.json.
        folder: of the study; the command writes to a folder of that name.
    """
    config = dict(study["config"])
    evaluation = dict(config.pop("evaluation", {}))
    words = ["moslora", "compare", str(study["task"])]
    for flag, setting in _FLAGS.items():
        words += _flag(flag, config.pop(setting, None))
    words += _flag("tests", evaluation.pop("data", None))
    words += _flag("benchmarks", study["benchmarks"])
    words += _flag("baseline", study["baseline"])
    for flag, settings in (("set", config), ("eval", evaluation)):
        words += _flag(flag, [f"{key}={_value(value)}" for key, value in settings.items() if value is not None])
    return shlex.join([*words, "--out", folder.name])


def _flag(name: str, value: Any) -> list[str]:
    values = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    return [f"--{name}", *map(str, values)] if values else []


def _value(value: Any) -> str:
    """As TOML, in which a plain word may stand for itself."""
    return value if isinstance(value, str) and value.replace("_", "").isalpha() else json.dumps(value)
