"""Adapter folders as PEFT saves them, MoSLoRA and plain LoRA alike, read and checked."""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from peft.utils.other import get_pattern_key
from torch import Tensor

from ..equation import MIXERS, Mixer, check_mixer_rank
from ..errors import CheckpointError, ConfigError, UnsupportedError
from .files import check_finite, read_json, read_safetensors
from .layers import Adapter, Layer

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
PREFIX = "base_model.model."  # PEFT's, before the name of a module of the base model
PEFT_TYPES = ("MOSLORA", "LORA")
WITH_MIXER = ("learnable", "frozen", "core")  # kinds of which the file holds M

# Ends of the keys of plain A, raw A, M and B. Raw A has a name of its own, so that no client takes it for plain A.
PROJECTION = ("lora_A.weight", "lora_A.raw", "lora_A.mixer", "lora_B.weight")
EMBEDDING = ("lora_embedding_A", "lora_embedding_A", "lora_embedding_mixer", "lora_embedding_B")


def load_adapter(folder: str | Path) -> Adapter:
    """An adapter folder, as `save_pretrained` writes it.

    Args:
        folder: with adapter_config.json of type MOSLORA or LORA, and adapter_model.safetensors.

    Raises:
        CheckpointError: a file is missing, truncated or foreign; a mixer is missing; a shape or value is impossible.
        UnsupportedError: the adapter is a BD-LoRA.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder. Expected one with {CONFIG} and {WEIGHTS}: check the path.")
    config = read_json(folder / CONFIG)
    check_config(folder / CONFIG, config)
    tensors, _ = read_safetensors(folder / WEIGHTS)
    return build_adapter(folder / WEIGHTS, config, tensors)


def check_config(path: Path, config: dict[str, Any]) -> None:
    """Raise CheckpointError unless this is the config of a LoRA or MoSLoRA adapter, UnsupportedError for BD-LoRA."""
    kind = config.get("peft_type")
    if kind not in PEFT_TYPES:
        raise CheckpointError(
            f"{path}: peft_type: found {kind!r}, expected {' or '.join(PEFT_TYPES)}. This is no MoSLoRA adapter."
        )
    if config.get("lora_use_mixer"):
        raise CheckpointError(
            f"{path}: lora_use_mixer: found a setting of the authors' code, expected `mixer`. "
            f"Convert the folder first: moslora import {path.parent} NEW_FOLDER"
        )
    if config.get("use_bdlora"):
        raise UnsupportedError(
            f"{path}: use_bdlora: the factors of BD-LoRA are block-diagonal, which is not supported here. Load the "
            "adapter in Python, and save moslora.to_lora(model)."
        )
    _check_kinds(path, config)
    for key in ("r", "lora_alpha"):
        value = config.get(key)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise CheckpointError(f"{path}: {key}: found {value!r}, expected a number: the config is damaged.")
    for mixer in (config.get("mixer"), *(config.get("mixer_pattern") or {}).values()):
        if kind == "MOSLORA" and mixer not in MIXERS:
            raise CheckpointError(f"{path}: mixer: found {mixer!r}, expected one of {', '.join(MIXERS)}.")


def _check_kinds(path: Path, config: dict[str, Any]) -> None:
    """Raise CheckpointError if a setting that is read here is of another kind than PEFT writes."""
    for key in ("rank_pattern", "alpha_pattern", "mixer_pattern"):
        pattern = config.get(key) or {}
        if not isinstance(pattern, dict):
            raise CheckpointError(f"{path}: {key}: found {str(pattern)[:80]}, expected an object of patterns.")
        for each in pattern:
            try:
                re.compile(each)
            except (re.error, RecursionError, OverflowError) as error:
                raise CheckpointError(f"{path}: {key}: found {each[:80]!r}, no regular expression ({error}).") from None
    targets = config.get("target_parameters") or []
    if not isinstance(targets, list) or not all(isinstance(target, str) for target in targets):
        raise CheckpointError(f"{path}: target_parameters: found {str(targets)[:80]}, expected a list of names.")


def build_adapter(file: Path, config: dict[str, Any], tensors: Mapping[str, Tensor]) -> Adapter:
    """An adapter of these tensors.

    Args:
        file: where they came from, for messages.
        config: contents of an adapter_config.json.
        tensors: with the keys of an adapter_model.safetensors.

    Raises:
        CheckpointError: as for `load_adapter`.
    """
    parts: dict[str, dict[str, Tensor]] = {}
    others = {}
    for key, tensor in tensors.items():
        name, is_layer, part = key.removeprefix(PREFIX).partition(".lora_")
        if is_layer or tensor.is_floating_point():
            check_finite(file, key, tensor)
        if is_layer:
            parts.setdefault(name, {})[f"lora_{part}"] = tensor
        else:
            others[name] = tensor
    if not parts:
        found = ", ".join(list(tensors)[:3]) or "nothing"
        raise CheckpointError(
            f"{file}: found no LoRA layer (keys: {found}), expected keys such as {PREFIX}NAME.lora_B.weight. "
            "The file is foreign, or was saved without its adapter."
        )
    layers = {name: _LayerReader(file, config, name, found).layer() for name, found in sorted(parts.items())}
    return Adapter(config, layers, others, file)


class _LayerReader:
    """Puts the tensors of one layer together, and says what is wrong with them."""

    def __init__(self, file: Path, config: dict[str, Any], name: str, parts: dict[str, Tensor]) -> None:
        self.file = file
        self.config = config
        self.name = name
        self.parts = parts
        self.is_embedding = any(part.startswith("lora_embedding_") for part in parts)
        self.plain_key, self.raw_key, self.mixer_key, self.B_key = EMBEDDING if self.is_embedding else PROJECTION
        self.parameters = self._parameter_names()

    def layer(self) -> Layer:
        """The layer; raises CheckpointError."""
        r, alpha, mixer = self._settings()
        extras = dict(self.parts)
        A_key = self.plain_key if mixer == "identity" else self.raw_key
        A, B = self._take(extras, A_key), self._take(extras, self.B_key)
        M = self._take(extras, self.mixer_key) if mixer in WITH_MIXER else None
        theirs = [part for part in extras if part.startswith(("lora_AB", "lora_mixer"))]
        if theirs:
            self._fail(theirs[0], "a mixer of the authors' code", "none: run `moslora import` on the folder first")
        unread = {self.plain_key, self.raw_key, self.mixer_key} & set(extras)
        if unread:
            self._fail(min(unread), "a tensor", f"none, as {CONFIG} says that the mixer of this layer is {mixer!r}")
        experts = max(1, A.shape[0] // r) if self.parameters and A.ndim == 2 else 1
        self._check_shapes(A_key, A, M, B, r, experts)
        try:
            check_mixer_rank(mixer, r, self.name)
        except ConfigError as error:
            raise CheckpointError(f"{self.file}: {error}") from None
        return Layer(
            name=self.name,
            A=A,
            B=B,
            M=M,
            mixer=mixer,
            r=r,
            scale=alpha / (math.sqrt(r) if self.config.get("use_rslora") else r),
            experts=experts,
            is_embedding=self.is_embedding,
            extras=extras,
        )

    def _check_shapes(self, A_key: str, A: Tensor, M: Tensor | None, B: Tensor, r: int, experts: int) -> None:
        if A.ndim < 2 or A.shape[0] != experts * r:
            self._fail(A_key, f"shape {tuple(A.shape)}", f"shape ({experts * r}, ...), for rank {r} by {CONFIG}")
        square = (r, r) if experts == 1 else (experts, r, r)
        if M is not None and self._settings()[2] == "core":
            square = (r, r, *M.shape[2 : A.ndim])
            if any(size != 1 for size in A.shape[2:]):
                self._fail(A_key, f"shape {tuple(A.shape)}", "shape (r, channels, 1, ...) beside a core")
        if M is not None and M.shape != square:
            self._fail(self.mixer_key, f"shape {tuple(M.shape)}", f"shape {square}")
        # A convolution of several groups has a B (d_out, r / groups, 1, 1).
        kernel = (1,) * (A.ndim - 2)
        fits = B.ndim == A.ndim and B.shape[2:] == kernel and B.shape[1] > 0 and (experts * r) % B.shape[1] == 0
        if fits and kernel:
            fits = B.shape[0] % (r // B.shape[1]) == 0
        elif fits:
            fits = B.shape[1] == experts * r
        if not fits:
            expected = ", ".join(map(str, ("outputs", experts * r, *kernel)))
            self._fail(self.B_key, f"shape {tuple(B.shape)}", f"shape ({expected})")

    def _settings(self) -> tuple[int, float, Mixer]:
        """Rank, alpha and mixer that the config gives this layer."""
        found = {self._settings_of(name) for name in self.parameters or [self.name]}
        if len(found) > 1:
            found = {each for each in found if self._is_possible(each)}
        if len(found) != 1:
            raise CheckpointError(
                f"{self.file}: {self.name}: found {len(found)} settings (rank, alpha, mixer) {sorted(found)} that fit "
                "this layer, expected one. A saved adapter does not name its target_parameters: rank_pattern, "
                f"alpha_pattern and mixer_pattern of {CONFIG} must agree on all of one module."
            )
        return found.pop()

    def _settings_of(self, name: str) -> tuple[int, float, Mixer]:
        outer = name.partition(".base_layer.")[0]  # an attention's out_proj has the rank of its attention
        ranks, alphas = self.config.get("rank_pattern") or {}, self.config.get("alpha_pattern") or {}
        r = ranks.get(get_pattern_key(ranks, outer), self.config["r"])
        alpha = alphas.get(get_pattern_key(alphas, outer), self.config["lora_alpha"])
        if not isinstance(r, int) or r < 1 or not isinstance(alpha, int | float):
            raise CheckpointError(f"{self.file}: {self.name}: found rank {r!r} and alpha {alpha!r}, expected numbers.")
        if self.config["peft_type"] == "LORA":
            return r, alpha, "identity"
        mixers = self.config.get("mixer_pattern") or {}
        return r, alpha, mixers.get(get_pattern_key(mixers, name.replace(".base_layer", "")), self.config["mixer"])

    def _is_possible(self, settings: tuple[int, float, Mixer]) -> bool:
        r, _, mixer = settings
        M = self.parts.get(self.mixer_key)
        return (M is not None) == (mixer in WITH_MIXER) and (M is None or r in (M.shape[0], M.shape[-1]))

    def _parameter_names(self) -> list[str]:
        """Names of the target_parameters that this layer could stand for; none if it stands for a whole module."""
        module = self.name
        while module.endswith(".base_layer"):
            module = module.removesuffix(".base_layer")
        targets = self.config.get("target_parameters") or []
        names = [(f"{module}.{target.rpartition('.')[2]}", target) for target in targets]
        return [name for name, target in names if name == target or name.endswith(f".{target}")]

    def _take(self, parts: dict[str, Tensor], part: str) -> Tensor:
        if part not in parts:
            found = ", ".join(sorted(self.parts))
            raise CheckpointError(
                f"{self.file}: {PREFIX}{self.name}.{part}: found no such key, expected one beside {found}. "
                "The file is incomplete, or another program dropped the mixer: save the adapter again."
            )
        return parts.pop(part)

    def _fail(self, part: str, found: str, expected: str) -> None:
        raise CheckpointError(
            f"{self.file}: {PREFIX}{self.name}.{part}: found {found}, expected {expected}. "
            "The file is damaged, or does not belong to its config."
        )
