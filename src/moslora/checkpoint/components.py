"""Adapters of several parts of a diffusion pipeline, taken as one whose layers begin with the name of their part."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError, UnsupportedError
from .formats import BEYOND_PLAIN
from .layers import Adapter
from .load import CONFIG, load_adapter

COMPONENTS = ("unet", "transformer", "text_encoder", "text_encoder_2")
# Where a run of `moslora train subject` keeps the adapter of each part.
FOLDERS = {"unet": "adapter", "text_encoder": "text_encoder_adapter", "text_encoder_2": "text_encoder_2_adapter"}


def component_folders(run: Path) -> dict[str, Path]:
    """The adapters in a run folder, by part of the pipeline; none if it is no run folder."""
    return {name: run / folder for name, folder in FOLDERS.items() if (run / folder / CONFIG).is_file()}


def load_components(folder: Path) -> Adapter:
    """The adapter in a folder; that of all parts together for the folder of a run that trained several.

    Raises:
        CheckpointError: as for `load_adapter`.
        UnsupportedError: the parts were adapted in ways that have no common form.
    """
    parts = component_folders(folder)
    if (folder / CONFIG).is_file() or not parts:
        return load_adapter(folder)
    if list(parts) == ["unet"]:
        return load_adapter(parts["unet"])
    return join_components({name: load_adapter(part) for name, part in parts.items()})


def join_components(adapters: Mapping[str, Adapter]) -> Adapter:
    """One adapter of several parts of a pipeline.

    Args:
        adapters: part, one of `COMPONENTS` -> its adapter.

    Raises:
        UnsupportedError: their configs differ in a setting that is more than plain LoRA.
    """
    first = next(iter(adapters.values()))
    for key in (*BEYOND_PLAIN, "init_lora_weights", "peft_type"):
        if any(adapter.config.get(key) != first.config.get(key) for adapter in adapters.values()):
            raise UnsupportedError(f"The parts {', '.join(adapters)} differ in {key}: export them one by one.")
    return replace(
        first,
        layers={f"{part}.{name}": layer for part, each in adapters.items() for name, layer in each.layers.items()},
        others={f"{part}.{key}": tensor for part, each in adapters.items() for key, tensor in each.others.items()},
    )


def split_components(names: Iterable[str], component: str | None) -> dict[str, tuple[str, str]]:
    """Name of each layer -> the part of the pipeline that it belongs to, and its name there.

    Args:
        names: of the adapted layers.
        component: what the user says the part is; None to recognise a unet, a transformer, or layers that begin with
            the name of their part. Text encoders look alike.

    Raises:
        ConfigError: a part is unknown or cannot be recognised.
    """
    names = list(names)
    firsts = {name.partition(".")[0] for name in names}
    if component is None and firsts <= set(COMPONENTS):
        parted = {name: name.partition(".") for name in names}
        return {name: (first, rest) for name, (first, _, rest) in parted.items()}
    if component is None and firsts & {"down_blocks", "mid_block", "up_blocks"}:
        component = "unet"
    elif component is None and firsts & {"transformer_blocks", "single_transformer_blocks"}:
        component = "transformer"
    if component not in COMPONENTS:
        raise ConfigError(
            f"Found component {component!r} for layers such as {min(names)}: say which part of the pipeline was "
            f"adapted with --component {{{','.join(COMPONENTS)}}}."
        )
    return {name: (component, name) for name in names}
