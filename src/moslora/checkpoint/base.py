"""The base model of a merge: its folder, its class, and which tensor of its files is which of its parameters."""

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import transformers
from huggingface_hub import snapshot_download
from torch import nn

from ..errors import ConfigError, UnsupportedError
from .shards import INDEX, SINGLE, Weights, weight_files

# What comes from the base model unchanged, beside its config.
COPIED = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.*",
    "merges.txt",
    "*.model",
    "chat_template*",
    "*processor_config.json",
)


@dataclass(frozen=True)
class Base:
    """A base model that is not loaded.

    Attributes:
        folder: on this machine.
        skeleton: the model on the meta device, without weights.
    """

    folder: Path
    skeleton: transformers.PreTrainedModel

    @property
    def class_name(self) -> str:
        """Of the model, in transformers."""
        return type(self.skeleton).__name__

    def load(self) -> transformers.PreTrainedModel:
        """The model with its weights, in the dtypes of its files."""
        return type(self.skeleton).from_pretrained(self.folder, dtype="auto")

    def names_on_disk(self) -> dict[str, str]:
        """Name of a parameter -> its key in the safetensors files, where one tensor of a file is just that parameter.

        Nothing for weights that transformers puts together while it loads them, such as experts, and nothing at all
        for a base in other files than safetensors.
        """
        if not weight_files(self.folder):
            return {}
        places, expected = Weights(self.folder).places, self.skeleton.state_dict()
        found: dict[str, list[str]] = {}
        for key, name in _names(self.skeleton, places).items():
            if name in expected and tuple(expected[name].shape) == places[key].shape:
                found.setdefault(name, []).append(key)
        return {name: keys[0] for name, keys in found.items() if len(keys) == 1}

    def copy_settings(self, out: Path) -> None:
        """Copy tokenizer, processor and the like, but no file that `out` has already."""
        for pattern in COPIED:
            for path in self.folder.glob(pattern):
                if path.is_file() and not (out / path.name).exists():
                    shutil.copyfile(path, out / path.name)

    def copy_weights(self, out: Path) -> None:
        """Copy config and weights."""
        for path in weight_files(self.folder):
            shutil.copyfile(path, out / path.name)
        for name in ("config.json", "generation_config.json", INDEX):
            if (self.folder / name).is_file():
                shutil.copyfile(self.folder / name, out / name)


def find_base(base: str) -> Base:
    """The base model of this folder or hub id.

    Raises:
        ConfigError: there is no config, or none that a model can be made with.
        UnsupportedError: the model is not one of transformers', or its files are quantised.
    """
    try:
        config = transformers.AutoConfig.from_pretrained(base)
    except Exception as error:  # its readers and the hub raise errors of many kinds
        reason = _reason(error)
        raise ConfigError(f"Cannot read the base model {base} ({reason}): give its folder with --base.") from None
    name = config.architectures[0] if isinstance(config.architectures, list) and config.architectures else "none"
    model_class = getattr(transformers, str(name), None)
    if not (isinstance(model_class, type) and issubclass(model_class, transformers.PreTrainedModel)):
        raise UnsupportedError(f"{base}: its config names the class {name}, which is no model of transformers.")
    if getattr(config, "quantization_config", None):
        raise UnsupportedError(
            f"{base}: its weights are quantised on the disk, so a sum would be rounded to their few bits. Give the "
            "model that it was made from with --base."
        )
    try:
        with torch.device("meta"):
            skeleton = model_class(config)
    except Exception as error:  # of any kind: the sizes are those of a stranger's file
        raise ConfigError(
            f"{base}: {name} cannot be made with this config ({_reason(error)}): config.json is damaged, or is of "
            "another model. Copy it again."
        ) from None
    folder = Path(base)
    if not folder.is_dir():
        wanted = [SINGLE, INDEX, "model-*.safetensors", "pytorch_model*", "*.json", *COPIED]
        folder = Path(snapshot_download(base, allow_patterns=wanted))
    return Base(folder, skeleton)


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _names(skeleton: nn.Module, keys: Iterable[str]) -> dict[str, str]:
    """Key in a file -> name of the parameter that transformers makes of it, but for keys that it converts."""
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    changes = get_model_conversion_mapping(skeleton)
    renamings = [change for change in changes if isinstance(change, WeightRenaming)]
    converters = [change for change in changes if isinstance(change, WeightConverter)]
    prefix, expected = skeleton.base_model_prefix, skeleton.state_dict()
    names = {}
    for key in keys:
        name, converted = rename_source_key(key, renamings, converters, prefix, expected)
        if converted is None:
            names[key] = name
    return names
