"""The base model with an adapter merged into its weights, as a folder that needs no PEFT."""

import shutil
from pathlib import Path

import peft
import transformers
from huggingface_hub import snapshot_download

from ..errors import ConfigError, UnsupportedError
from .files import new_path, refuse_existing
from .layers import Adapter
from .load import load_adapter

# What comes from the base model unchanged.
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


def merge_adapter(adapter_folder: str | Path, out: str | Path, *, base: str | Path | None = None) -> str:
    """Write the whole model with `W + delta W` as its weights, in the base model's dtype.

    Args:
        adapter_folder: as `save_pretrained` writes it.
        out: a new folder.
        base: folder or hub id of the base model; the adapter's base_model_name_or_path when None.

    Returns:
        the name of the model's class in transformers.

    Raises:
        CheckpointError: the adapter is damaged.
        ConfigError: `out` exists, there is no base model, or the adapter does not fit it.
        UnsupportedError: the model is not one of transformers'.
    """
    out = Path(out)
    refuse_existing(out)
    adapter = load_adapter(adapter_folder)
    base = base or adapter.config.get("base_model_name_or_path")
    if not base:
        raise ConfigError(f"{adapter_folder} names no base model: give its folder or hub id with --base.")
    model = _load_base(str(base))
    try:
        adapted = peft.PeftModel.from_pretrained(model, adapter_folder)
    except (ValueError, RuntimeError) as error:
        raise ConfigError(f"{adapter_folder} does not fit the base model {base}: {error}") from None
    _check_names(adapter, adapted, base)
    merged = adapted.merge_and_unload(progressbar=True, safe_merge=True)
    with new_path(out) as partial:
        merged.save_pretrained(partial)
        _copy_tokenizer(str(base), partial)
    return type(merged).__name__


def _load_base(base: str) -> transformers.PreTrainedModel:
    try:
        config = transformers.AutoConfig.from_pretrained(base)
    except (OSError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ConfigError(f"Cannot read the base model {base} ({reason}): give its folder with --base.") from None
    name = (config.architectures or ["none"])[0]
    if not hasattr(transformers, name):
        raise UnsupportedError(f"{base}: its config names the class {name}, which transformers does not have.")
    return getattr(transformers, name).from_pretrained(base, dtype="auto")


def _check_names(adapter: Adapter, adapted: peft.PeftModel, base: str | Path) -> None:
    """PEFT only warns of weights that have no place in the model."""
    modules = adapted.get_base_model().named_modules()
    found = {name for name, module in modules if hasattr(module, "lora_embedding_A")}
    odd = sorted(found ^ adapter.layers.keys())
    if odd:
        raise ConfigError(
            f"{adapter.file} does not fit the base model {base}: found {len(found)} layers in the model and "
            f"{len(adapter.layers)} in the adapter, which differ in {', '.join(odd[:3])}."
        )


def _copy_tokenizer(base: str, out: Path) -> None:
    folder = Path(base) if Path(base).is_dir() else Path(snapshot_download(base, allow_patterns=list(COPIED)))
    for pattern in COPIED:
        for path in folder.glob(pattern):
            if path.is_file() and not (out / path.name).exists():
                shutil.copyfile(path, out / path.name)
