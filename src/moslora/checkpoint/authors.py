"""The authors' checkpoints, turned into MoSLoRA adapters.

Their three forks of PEFT save the mixer as `lora_AB.weight`, an nn.Linear whose weight is M, and mark the config with
`lora_use_mixer`. Only linear layers have one. diffusers, which does not know the name, rewrites a part of it to
`lora.downB.weight` on saving.
"""

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

from peft.utils.other import get_pattern_key
from torch import Tensor

from ..adapter import MosLoraConfig
from ..errors import CheckpointError, ConfigError, UnsupportedError
from .components import COMPONENTS
from .files import new_path, read_json, read_pickle, read_safetensors, refuse_existing, write_safetensors
from .formats.diffusers import FILE, HEADER, plain_settings
from .layers import Adapter
from .load import CONFIG, PREFIX, WEIGHTS, build_adapter, check_config, load_adapter

# Pattern of the end of their key -> PEFT's, or ours for the mixer.
RENAMED = {
    r"\.lora_(AB|mixer)(\.weight)?": ".lora_A.mixer",
    r"\.lora(_linear_layer)?\.downB\.weight": ".lora_A.mixer",
    r"\.lora(_linear_layer)?\.down\.weight": ".lora_A.weight",
    r"\.lora(_linear_layer)?\.up\.weight": ".lora_B.weight",
}
# Settings of theirs that say nothing any more once the mixers are known.
OUTDATED = ("lora_use_mixer", "lora_use_mixer_pattern", "merge_weights", "enable_lora")


def import_adapter(
    src: str | Path, out: str | Path, *, allow_pickle: bool = False, component: str | None = None
) -> Adapter:
    """Turn a checkpoint of the authors' code into a MoSLoRA adapter that `PeftModel.from_pretrained` loads.

    Args:
        src: a folder of their PEFT (adapter_config.json and adapter_model.safetensors or .bin), or what diffusers
            saved of it: pytorch_lora_weights.safetensors or .bin, or the folder around it.
        out: a new folder.
        allow_pickle: whether a .bin file may be read; only tensors are then unpickled.
        component: diffusers only: which part of the pipeline to take, if the file holds several.

    Returns:
        the adapter, as read back from `out`.

    Raises:
        CheckpointError: a file is missing, damaged or foreign, or a mixer is missing.
        ConfigError: `out` exists, or the component is not in the file.
        UnsupportedError: the checkpoint uses something that MoSLoRA has not.
    """
    src, out = Path(src), Path(out)
    refuse_existing(out)
    is_peft = (src / CONFIG).is_file()
    file = _weights_file(src, is_peft)
    if file.suffix == ".bin" and not allow_pickle:
        raise CheckpointError(
            f"{file}: found a pickle, which may hold code, expected safetensors. If you trust where it comes from, "
            "allow it with --allow-pickle; only tensors are then read."
        )
    tensors, metadata = (read_pickle(file), {}) if file.suffix == ".bin" else read_safetensors(file)
    if is_peft:
        config = read_json(src / CONFIG)
        check_config(src / CONFIG, {**config, "lora_use_mixer": False})
        plain = {_renamed(key.removeprefix(PREFIX)): tensor for key, tensor in tensors.items()}
    else:
        component = _component(file, tensors, component)
        plain = _own_tensors(tensors, component)
        config = _diffusers_config(file, plain, metadata, component)
    unmixed = _unmixed(file, config, plain)
    settings = _moslora_config(src / CONFIG if is_peft else file, config, unmixed)
    ours = {PREFIX + _raw(key, plain): tensor for key, tensor in plain.items()}
    build_adapter(file, settings.to_dict(), ours)  # finds what is wrong while the messages can name their file
    with new_path(out) as partial:
        partial.mkdir()
        settings.save_pretrained(partial)
        write_safetensors(partial / WEIGHTS, ours)
        return dataclasses.replace(load_adapter(partial), file=out / WEIGHTS)


def _weights_file(src: Path, is_peft: bool) -> Path:
    if src.is_file():
        return src
    name = WEIGHTS if is_peft else FILE
    candidates = [src / name, src / name.replace(".safetensors", ".bin")]
    for path in candidates:
        if path.is_file():
            return path
    raise CheckpointError(
        f"{src}: found neither {CONFIG} with {WEIGHTS} nor {FILE}, expected one of them (or a .bin in its place)."
    )


def _renamed(key: str) -> str:
    for pattern, end in RENAMED.items():
        if match := re.search(rf"{pattern}$", key):
            return key[: match.start()] + end
    return key


def _raw(key: str, tensors: dict[str, Tensor]) -> str:
    """The key of A says whether it is mixed."""
    name = key.removesuffix(".lora_A.weight")
    return f"{name}.lora_A.raw" if name != key and f"{name}.lora_A.mixer" in tensors else key


def _component(file: Path, tensors: dict[str, Tensor], component: str | None) -> str:
    found = {key.partition(".")[0] for key in tensors}
    if not found <= set(COMPONENTS):
        raise CheckpointError(
            f"{file}: found keys that begin with {', '.join(sorted(found - set(COMPONENTS))[:3])}, expected "
            f"{', '.join(COMPONENTS)}. The file is foreign, or its {CONFIG} is missing."
        )
    if component is None and len(found) == 1:
        return found.pop()
    if component not in found:
        raise ConfigError(
            f"{file} holds {', '.join(sorted(found))}: take one after the other with --component, each into a folder "
            "of its own."
        )
    return component


def _own_tensors(tensors: dict[str, Tensor], component: str) -> dict[str, Tensor]:
    """The tensors of one part of the pipeline, by PEFT's keys."""
    own = {key: tensor for key, tensor in tensors.items() if key.startswith(f"{component}.")}
    # The first text encoder of transformers 5 has no `text_model` around its layers any more.
    outer = "text_encoder.text_model." if component == "text_encoder" else f"{component}."
    return {_renamed(key.removeprefix(outer).removeprefix(f"{component}.")): tensor for key, tensor in own.items()}


def _diffusers_config(
    file: Path, tensors: dict[str, Tensor], metadata: dict[str, str], component: str
) -> dict[str, Any]:
    """The settings in the header of the file; without them diffusers means alpha = rank."""
    if HEADER in metadata:
        header = json.loads(metadata[HEADER])
        return {
            key.removeprefix(f"{component}."): value for key, value in header.items() if key.startswith(f"{component}.")
        }
    ends = ".lora_A.weight"
    ranks = {key.removesuffix(ends): len(tensor) for key, tensor in tensors.items() if key.endswith(ends)}
    if not ranks:
        raise CheckpointError(f"{file}: found no LoRA layer, expected keys such as {component}.NAME.lora_A.weight.")
    return plain_settings({name: (r, r) for name, r in ranks.items()})


def _moslora_config(origin: Path, config: dict[str, Any], unmixed: list[str]) -> MosLoraConfig:
    """Their settings in our terms. Layers without a mixer are named in `mixer_pattern`."""
    if config.get("enable_lora"):
        raise UnsupportedError(f"{origin}: enable_lora (a fused q, k, v layer) has no equal in today's PEFT.")
    names = {field.name for field in dataclasses.fields(MosLoraConfig)} | {"peft_version", *OUTDATED}
    strange = {key: value for key, value in config.items() if key not in names and value}
    if strange:
        raise UnsupportedError(
            f"{origin}: found settings that are not known: {strange}. Expected those of LoRA; if they do "
            "not change what the adapter computes, remove them."
        )
    known = {field.name for field in dataclasses.fields(MosLoraConfig) if field.init} - {
        "mixer",
        "mixer_pattern",
        "inference_mode",
    }
    values = {key: value for key, value in config.items() if key in known and value is not None}
    values.pop("peft_type", None)
    try:
        return MosLoraConfig(**values, mixer_pattern=dict.fromkeys(unmixed, "identity"), inference_mode=True)
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{origin}: found settings that PEFT refuses: {error}") from None


def _unmixed(file: Path, config: dict[str, Any], tensors: dict[str, Tensor]) -> list[str]:
    """Names of the layers without a mixer; raises CheckpointError if one should have a mixer."""
    ends = re.compile(r"\.lora_(A\.weight|embedding_A)$")
    names = {ends.sub("", key): tensor for key, tensor in tensors.items() if ends.search(key)}
    unmixed = sorted(name for name in names if f"{name}.lora_A.mixer" not in tensors)
    if len(unmixed) == len(names):
        raise CheckpointError(
            f"{file}: found no mixer (a key that ends in lora_AB.weight), expected one in each linear layer. "
            + ("They were lost when the file was saved." if config.get("lora_use_mixer") else "This is a plain LoRA.")
        )
    switches = config.get("lora_use_mixer_pattern") or {}
    for name in unmixed:
        is_linear = f"{name}.lora_A.weight" in tensors and names[name].ndim == 2
        if is_linear and switches.get(get_pattern_key(switches, name), True):
            raise CheckpointError(
                f"{file}: {name}.lora_AB.weight: found no such key, expected the mixer of this layer next to its "
                "lora_A and lora_B. The file is incomplete."
            )
    return unmixed
