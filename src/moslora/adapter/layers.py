"""Mixers put into PEFT's LoRA layers, whatever their kind.

A layer keeps its PEFT class and code; a thin subclass in front makes sure that every later `update_layer`, by PEFT's
EVA for one, leaves the layer with its mixer.
"""

import contextlib
import functools
import hashlib
from typing import Any

import torch
from peft.tuners.lora.layer import LoraLayer
from peft.tuners.lora.variants import BlockDiagonalLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn

from ..equation import check_mixer_rank, draw_mixer
from ..errors import UnsupportedError
from ..ops import Kernel
from .config import FREE_INITS, MosLoraConfig
from .forward import LINEAR_CLASSES, fast_forward
from .modules import MIXED_CLASSES, MixedEmbeddingFactors, MixedFactor, solve_raw


class MixedLayer:
    """Mixin in front of a PEFT LoRA layer class.

    Attributes:
        mixer_target: name of the layer in the base model, for `mixer_pattern`.
        kernels: adapter -> kernel of `moslora.ops` that its config asks for.
        tiers: adapter -> tier of `moslora.ops` that computed it last, "peft" where PEFT's own code did.
    """

    lora_class: type[LoraLayer]
    mixer_target: str
    kernels: dict[str, Kernel]
    tiers: dict[str, str]

    # Of the PEFT class behind this mixin:
    _modules: dict[str, Any]
    active_adapters: list[str]
    adapter_layer_names: tuple[str, ...]
    base_layer: nn.Module
    disable_adapters: bool
    lora_A: Any
    lora_B: Any
    lora_dropout: nn.ModuleDict
    lora_embedding_A: nn.ParameterDict
    lora_embedding_B: Any
    lora_embedding_mixer: nn.ParameterDict
    lora_variant: dict[str, Any]
    merged: bool
    merged_adapters: list[str]
    other_param_names: tuple[str, ...]
    r: dict[str, int]
    scaling: dict[str, float]

    def update_layer(self, adapter_name: str, *args: Any, config: Any, **kwargs: Any) -> None:
        forget_mixer(self, adapter_name)
        super().update_layer(adapter_name, *args, config=config, **kwargs)  # type: ignore[misc]
        if isinstance(config, MosLoraConfig):
            mix(self, adapter_name, config)

    def merge(self, *args: Any, **kwargs: Any) -> None:
        """PEFT's merge, where there is one that is right.

        Raises:
            UnsupportedError: the layer is quantised in a way that PEFT cannot merge into, or would without a word.
        """
        refuse_wrong_merge(self)
        super().merge(*args, **kwargs)  # type: ignore[misc]

    def _freeze_non_trainable_peft_weights(self, *args: Any, **kwargs: Any) -> None:
        with raw_shown(self):
            super()._freeze_non_trainable_peft_weights(*args, **kwargs)  # type: ignore[misc]

    def __reduce_ex__(self, protocol: Any) -> Any:
        # The class is made at run time, so pickle and deepcopy have to be told how to make it again.
        _, _, *state = tuple(super().__reduce_ex__(protocol))
        return (_blank_mixed_layer, (self.lora_class,), *state)


class FastMixedLayer(MixedLayer):
    """MixedLayer of a linear layer, which computes through `moslora.ops` where that means the same."""

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        output = fast_forward(self, x, args, kwargs)
        return super().forward(x, *args, **kwargs) if output is None else output  # type: ignore[misc]


@functools.cache
def mixed_layer_class(lora_class: type[LoraLayer]) -> type[MixedLayer]:
    """`lora_class` with MixedLayer in front. It keeps its full name, by which PEFT recognises some classes."""
    mixin = FastMixedLayer if lora_class in LINEAR_CLASSES else MixedLayer
    namespace = {"lora_class": lora_class, "__module__": lora_class.__module__, "__doc__": lora_class.__doc__}
    return type(lora_class.__name__, (mixin, lora_class), namespace)


def _blank_mixed_layer(lora_class: type[LoraLayer]) -> MixedLayer:
    cls = mixed_layer_class(lora_class)  # type: ignore[arg-type]
    return cls.__new__(cls)


def adopt_layer(layer: LoraLayer, target: str) -> None:
    """Make `layer` a MixedLayer; nothing happens if it is one."""
    if isinstance(layer, MixedLayer):
        return
    layer.__class__ = mixed_layer_class(type(layer))  # type: ignore[arg-type]
    layer.mixer_target = target
    layer.kernels, layer.tiers = {}, {}
    layer.other_param_names = (*layer.other_param_names, "kernels", "tiers")  # PEFT clears these with the adapter


def mix(layer: MixedLayer, adapter_name: str, config: MosLoraConfig, shared_mixer: nn.Parameter | None = None) -> None:
    """Put the configured mixer between A and B of one adapter, unless it is there.

    Args:
        layer: with plain A and B of `adapter_name`.
        adapter_name: may be absent from this layer.
        config: says which mixer and which init.
        shared_mixer: the transposed mixer of a tied embedding, used instead of a new one.

    Raises:
        ConfigError: the rank is odd and the mixer is the butterfly.
        UnsupportedError: the layer's A is of a kind that cannot be mixed, or its init cannot be kept.
    """
    layer.kernels[adapter_name], layer.tiers[adapter_name] = config.kernel, "peft"
    kind = config.mixer_of(layer.mixer_target)
    is_embedding = adapter_name in layer.lora_embedding_A
    if kind == "identity" or mixed(layer, adapter_name) or not (is_embedding or adapter_name in layer.lora_A):
        return
    if kind == "core":
        mix_core(layer, adapter_name, config)
        return
    if kind in ("learnable", "frozen") and config.init_mixer == "gradient":
        _check_gradient_init(layer, adapter_name, config)
    raw = layer.lora_embedding_B[adapter_name] if is_embedding else layer.lora_A[adapter_name].weight
    experts = 1 if is_embedding else _independent_parts(layer, layer.lora_A[adapter_name])
    r = (raw.shape[1] if is_embedding else raw.shape[0]) // experts
    check_mixer_rank(kind, r, layer.mixer_target)
    shape = (r, r) if experts == 1 else (experts, r, r)

    mixer = None
    if kind in ("learnable", "frozen"):
        mixer = shared_mixer if shared_mixer is not None else _new_mixer(layer, shape, raw, config)
    if config.init_lora_weights not in FREE_INITS and shared_mixer is None:
        _keep_function(layer, raw, mixer, is_embedding)
    if is_embedding:
        _mix_embedding(layer, adapter_name, kind, mixer)
    else:
        _mix_projection(layer, adapter_name, kind, mixer, experts)
        unset = config.init_mixer == "gradient" and mixer is not None and not raw.is_meta
        layer.lora_A[adapter_name].awaits_gradient = unset
    if config.use_dora and config.init_lora_weights is False:
        # DoRA's magnitude was taken from B @ A; with B != 0 it has to be that of B @ M @ A.
        layer.lora_variant[adapter_name].init(layer, adapter_name=adapter_name, config=config)


def mixed(layer: LoraLayer, adapter_name: str) -> bool:
    """Whether this adapter of this layer has a mixer."""
    factors = layer.lora_embedding_B
    if isinstance(factors, MixedEmbeddingFactors) and adapter_name in factors.kinds:
        return True
    return adapter_name in layer.lora_A and isinstance(layer.lora_A[adapter_name], MixedFactor)


def raw_shown(layer: MixedLayer | None) -> contextlib.AbstractContextManager[None]:
    """While this lasts, PEFT reads the raw B of a mixed embedding; nothing happens for other layers."""
    factors = getattr(layer, "lora_embedding_B", None)
    return factors.raw_shown() if isinstance(factors, MixedEmbeddingFactors) else contextlib.nullcontext()


def forget_mixer(layer: LoraLayer, adapter_name: str) -> None:
    """Let PEFT write plain factors over the mixed ones of an adapter."""
    if mixed(layer, adapter_name):
        for container in (layer.lora_A, layer.lora_embedding_B, getattr(layer, "lora_embedding_mixer", {})):
            if adapter_name in container:
                del container[adapter_name]


def refuse_wrong_merge(layer: MixedLayer) -> None:
    """Raise UnsupportedError for a quantised base layer that PEFT cannot merge into, or loses the update in."""
    weight = getattr(layer.base_layer, "weight", None)
    if type(weight).__module__.startswith("optimum.quanto"):
        reason = "its weights are optimum-quanto's, which PEFT leaves as they were, so that the adapter would be lost"
    elif layer.lora_class.merge is BaseTunerLayer.merge:
        reason = f"PEFT's {layer.lora_class.__name__} cannot merge"
    else:
        return
    raise UnsupportedError(
        f"{layer.mixer_target}: an adapter cannot be merged here: {reason}. Keep the adapter beside the base "
        "(`moslora export` writes a plain LoRA), or merge it into the unquantised model with `moslora merge`."
    )


def mix_core(layer: MixedLayer, name: str, config: MosLoraConfig) -> None:
    """Put FLoRA's core between A and B: zero at the start, between two factors that are not.

    Raises:
        UnsupportedError: the layer is not linear or a convolution of one group, or A and B have an init of their own.

    Source: arXiv:2405.14739 and its code, which draws every factor from N(0, 1 / (2 r)).
    """
    down = dict(layer.lora_A).get(name)
    plain = type(down) in MIXED_CLASSES and _independent_parts(layer, down) == 1  # type: ignore[arg-type]
    if down is None or not plain or getattr(layer.base_layer, "groups", 1) != 1 or config.init_lora_weights is not True:
        raise UnsupportedError(
            f"{layer.mixer_target}: mixer='core' (FLoRA) fits linear layers and convolutions of one group, with "
            f"init_lora_weights=True. Found {type(layer.base_layer).__name__} with "
            f"init_lora_weights={config.init_lora_weights!r}."
        )
    weight, up = down.weight, layer.lora_B[name].weight
    r, channels, *kernel = weight.shape
    core = weight.new_zeros(r, r, *kernel)
    A = weight.new_empty(r, channels, *[1] * len(kernel))
    if not weight.is_meta:
        stream = _mixer_stream(layer.mixer_target)
        for factor in (A, up.data):
            factor.copy_(torch.randn(factor.shape, generator=stream) / (2 * r) ** 0.5)
    down.weight = nn.Parameter(A, requires_grad=weight.requires_grad)
    _mix_projection(layer, name, "core", nn.Parameter(core, requires_grad=weight.requires_grad), 1)


def _check_gradient_init(layer: MixedLayer, name: str, config: MosLoraConfig) -> None:
    linear = name in layer.lora_A and type(layer.lora_A[name]) is nn.Linear
    if not linear or _independent_parts(layer, layer.lora_A[name]) > 1 or config.init_lora_weights is False:
        raise UnsupportedError(
            f"{layer.mixer_target}: init_mixer='gradient' fits linear layers whose B starts at zero. Leave this layer "
            f"out with mixer_pattern={{'{layer.mixer_target}': 'identity'}}, or choose another init_mixer."
        )


def _independent_parts(layer: MixedLayer, down: nn.Module) -> int:
    """How many stretches of the rows of A have a mixer of their own: experts, or the blocks of BD-LoRA."""
    return down.nblocks if isinstance(down, BlockDiagonalLinear) else getattr(layer, "num_experts", 1)


def _mix_projection(layer: MixedLayer, name: str, kind: Any, mixer: nn.Parameter | None, experts: int) -> None:
    module = layer.lora_A[name]
    if type(module) not in MIXED_CLASSES:
        raise UnsupportedError(
            f"{layer.mixer_target}: its lora_A is a {type(module).__name__}, but a mixer fits "
            f"{', '.join(cls.__name__ for cls in MIXED_CLASSES)} only. Leave this layer out with "
            f"mixer_pattern={{'{layer.mixer_target}': 'identity'}} or use mixer='identity'."
        )
    if kind == "butterfly" and isinstance(module, BlockDiagonalLinear):
        raise UnsupportedError(
            f"{layer.mixer_target}: the butterfly mixer adds the two halves of the rank, which a block-diagonal lora_A "
            "(BD-LoRA) keeps apart. Use mixer='learnable', which then mixes within each block, or mixer='identity'."
        )
    MixedFactor.adopt(module, kind, mixer, experts)
    if not isinstance(layer.lora_A, MixedFactors):
        layer.lora_A = MixedFactors(layer.lora_A)


def _mix_embedding(layer: MixedLayer, name: str, kind: Any, mixer: nn.Parameter | None) -> None:
    if kind == "frozen":
        raise UnsupportedError(
            f"{layer.mixer_target}: an embedding's mixer cannot be frozen. Leave this layer out with "
            f"mixer_pattern={{'{layer.mixer_target}': 'identity'}} or use mixer='learnable'."
        )
    if not isinstance(layer.lora_embedding_B, MixedEmbeddingFactors):
        layer.lora_embedding_mixer = nn.ParameterDict()
        layer.lora_embedding_B = MixedEmbeddingFactors(layer.lora_embedding_B, layer.lora_embedding_mixer)
        layer.adapter_layer_names = (*layer.adapter_layer_names, "lora_embedding_mixer")
    if mixer is not None:
        layer.lora_embedding_mixer[name] = mixer
    layer.lora_embedding_B.kinds[name] = kind


def _new_mixer(layer: MixedLayer, shape: tuple[int, ...], raw: Tensor, config: MosLoraConfig) -> nn.Parameter:
    if raw.is_meta:
        mixer = torch.empty(shape, dtype=raw.dtype, device="meta")
    else:
        # Drawn in float32 on the CPU: orthogonal needs a QR, and every device then starts from the same numbers.
        drawn = torch.empty(shape, device="cpu")
        if config.init_mixer == "gradient":
            drawn.fill_(torch.nan)  # nobody may take these for values
        else:
            draw_mixer(drawn, config.init_mixer, _mixer_stream(layer.mixer_target))
        if config.init_lora_weights not in FREE_INITS:
            drawn = _nearest_orthogonal(drawn)
        mixer = drawn.to(raw.device, raw.dtype)
        _agree(layer, mixer)
    return nn.Parameter(mixer, requires_grad=raw.requires_grad)


def _agree(layer: MixedLayer, mixer: Tensor) -> None:
    """Under tensor parallelism, take the mixer of the first process, as PEFT does with factors that are whole."""
    mesh = getattr(layer.base_layer, "_hf_device_mesh", None)
    if mesh is not None:
        group = mesh.get_group()
        torch.distributed.broadcast(mixer, torch.distributed.get_global_rank(group, 0), group=group)


def _nearest_orthogonal(M: Tensor) -> Tensor:
    """The orthogonal matrix nearest to M (*, r, r), at M's norm.

    For the inits that need M^-1 A: a Kaiming mixer has a condition of a hundred and more, which would cost them two
    digits and, with bad luck, four.
    """
    left, singular_values, right = torch.linalg.svd(M.double())
    size = singular_values.square().mean(-1).sqrt()[..., None, None]
    return (size * (left @ right)).to(M.dtype)


def _mixer_stream(target: str) -> torch.Generator:
    """Randomness for one mixer that follows torch's seed but takes no number from torch's own stream.

    So MoSLoRA starts from the same A as plain LoRA with the same seed, layer by layer.
    """
    digest = hashlib.sha256(bytes(torch.get_rng_state().tolist()) + target.encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little"))


def _keep_function(layer: MixedLayer, raw: nn.Parameter, mixer: nn.Parameter | None, is_embedding: bool) -> None:
    """PiSSA and its like took B @ A out of the base weight: raw A becomes M^-1 A, so that B @ M @ A is the same."""
    if mixer is None:
        raise UnsupportedError(
            f"{layer.mixer_target}: the butterfly mixer is singular, so an init that is derived from the base weight "
            "(PiSSA, OLoRA, CorDA, LoftQ, LoRA-GA, orthogonal, MiCA) cannot be kept. Use mixer='learnable' with "
            "init_mixer='orthogonal', or init_lora_weights=True."
        )
    if raw.is_meta:
        return
    if is_embedding:
        raw.data = solve_raw(raw.data.T, mixer.data.T).T.contiguous()
    else:
        raw.data = solve_raw(raw.data, mixer.data)


class MixedFactors(nn.ModuleDict):
    """The `lora_A` of a layer: a mixed entry cannot be replaced by a plain one unnoticed."""

    def __init__(self, plain: nn.ModuleDict) -> None:
        super().__init__(dict(plain.items()))

    def __setitem__(self, name: str, module: nn.Module) -> None:
        if name in self and isinstance(self[name], MixedFactor) and not isinstance(module, MixedFactor):
            raise UnsupportedError(
                f"Something tried to replace the mixed A of adapter {name!r} by a plain {type(module).__name__}, which "
                "would drop its mixer. PEFT's hotswapping with another rank (prepare_model_for_compiled_hotswap with "
                "target_rank) does so: fold the adapters with moslora.to_lora or `moslora export`, and hotswap those."
            )
        super().__setitem__(name, module)
