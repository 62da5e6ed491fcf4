"""Refuse a state dict that would leave a MoSLoRA layer half loaded. PEFT itself warns, or says nothing."""

from collections.abc import Iterable

from torch import nn

from ..errors import CheckpointError
from .layers import MixedLayer

_FACTORS = ("lora_A.", "lora_B.", "lora_embedding_A.", "lora_embedding_B.", "lora_embedding_mixer.")
# With what the authors' code calls lora_AB, but without what PEFT saves beside the factors.
_STARTS = ("lora_A", "lora_B", "lora_embedding_", "lora_mixer")
_WRAPPERS = ("_fsdp_wrapped_module.", "_orig_mod.")
_PEFT_PREFIX = "base_model.model."


def check_factors(model: nn.Module, adapter_name: str, keys: Iterable[str]) -> None:
    """Raise CheckpointError if a layer gets some of its factors but not all, or tensors that it has no place for.

    A layer of which the keys hold nothing at all is left to PEFT, which warns.

    Args:
        model: with the adapter in place.
        adapter_name: which adapter is being loaded.
        keys: of the state dict, with the adapter's name in those that PEFT could map to the model.
    """
    given = [key.removeprefix(_PEFT_PREFIX) for key in keys]
    for path, layer in model.named_modules():
        if isinstance(layer, MixedLayer):
            name = _plain_name(path)
            prefix = f"{name}." if name else ""
            found = {
                key.removeprefix(prefix) for key in given if key.startswith(tuple(prefix + start for start in _STARTS))
            }
            if found:
                _check_layer(name, adapter_name, layer, found)


def _check_layer(name: str, adapter_name: str, layer: MixedLayer, found: set[str]) -> None:
    known = layer.state_dict().keys()  # type: ignore[attr-defined]
    wanted = {key for key in known if key.startswith(_FACTORS) and adapter_name in key.split(".")}
    wanted = {key for key in wanted if not key.endswith(".bias")}
    missing, foreign = sorted(wanted - found), sorted(found - known)
    if missing or foreign:
        problems = [("misses", missing), ("has no place for", foreign)]
        details = " and ".join(
            f"{verb} {', '.join(f'{name}.{key}' for key in keys).replace(f'.{adapter_name}', '')}"
            for verb, keys in problems
            if keys
        )
        raise CheckpointError(
            f"The weights do not fit the MoSLoRA adapter {adapter_name!r}: it {details}. Loading them would leave the "
            "layer without a trained factor. Load the weights with the adapter_config.json they were saved with; "
            "convert checkpoints of the authors' code with `moslora import`."
        )


def _plain_name(path: str) -> str:
    for wrapper in _WRAPPERS:
        path = path.replace(wrapper, "")
    return path.removeprefix(_PEFT_PREFIX)
