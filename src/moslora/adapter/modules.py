"""The down-projection A of a LoRA layer with a mixer in it.

PEFT reads `lora_A[name].weight` wherever it merges, converts, quantises or mixes adapters in a batch. Here that weight
*is* the effective `M @ A`, while the parameters underneath stay A and M. So none of that code needs to know of a mixer.
"""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, cast

import torch
from peft.tuners.lora.variants import BlockDiagonalLinear
from torch import Tensor, nn

from ..equation import Mixer, fold, fold_butterfly, fold_core, unfold
from ..errors import UnsupportedError


class EffectiveWeight(Tensor):
    """A product such as `M @ A` that passes what is written to it on to the raw factor behind it.

    `weight.data = x`, `weight.copy_(x)` and every other in-place call would otherwise change a temporary and be lost
    without a word: PEFT's EVA and LoftQ, and users, write to `lora_A[name].weight` that way.
    """

    _write: Callable[[Tensor], None]
    _raw: nn.Parameter

    @classmethod
    def of(cls, product: Tensor, raw: nn.Parameter, write: Callable[[Tensor], None]) -> Tensor:
        if torch.compiler.is_compiling() or type(product) is not Tensor:
            return product
        weight = product.as_subclass(cls)
        weight._raw, weight._write = raw, write
        return weight

    @classmethod
    def __torch_function__(
        cls, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        weight = args[0] if args and isinstance(args[0], cls) else None
        if weight is not None and func in _DONE_BY_RAW:
            return _DONE_BY_RAW[func](weight._raw, *args[1:])
        with torch._C.DisableTorchFunctionSubclass():
            result = func(*args, **(kwargs or {}))
            if weight is not None:
                if func in (Tensor.data.__get__, Tensor.detach):  # type: ignore[attr-defined]
                    return cls.of(result.as_subclass(Tensor), weight._raw, weight._write)
                if _writes(func):
                    weight._write(weight.detach().as_subclass(Tensor))
        return result


# Under no_grad a product claims to need no gradient, its own .grad is always empty, and it cannot be frozen.
_DONE_BY_RAW: dict[Any, Callable[..., Any]] = {
    Tensor.requires_grad.__get__: lambda raw: raw.requires_grad,  # type: ignore[attr-defined]
    Tensor.requires_grad.__set__: lambda raw, value: raw.requires_grad_(value),  # type: ignore[attr-defined]
    Tensor.requires_grad_: lambda raw, value=True: raw.requires_grad_(value),
    Tensor.grad.__get__: lambda raw: raw.grad,  # type: ignore[union-attr]
}


def _writes(func: Any) -> bool:
    name = getattr(func, "__name__", "")
    if func == Tensor.data.__set__ or name == "__setitem__":  # type: ignore[attr-defined]
        return True
    return (name.endswith("_") and not name.endswith("__")) or name.startswith("__i")


class MixedFactor(nn.Module):
    """Mixin of `MixedLinear` and the convolutions: parameters `raw` (A) and `mixer` (M), and a `weight` of `M @ A`.

    A is saved as `raw`, not as `weight`: a client that knows plain LoRA only then misses a key and stops, where it
    would otherwise leave the mixer out and run.

    Attributes:
        raw: A (r, *in), or (experts * r, d_in); with a core (r, channels, *1).
        mixer: (r, r) or (experts, r, r): a parameter if it is learnable, a buffer if it is frozen, so that nothing
            that unfreezes an adapter reaches it; None for the butterfly. A core is (r, r, *kernel).
        mixer_kind: any but "identity", which needs no such module.
        experts: number of independent mixers.
        awaits_gradient: whether the mixer has no values yet, because `initialize_mixer` has to compute them.
    """

    raw: nn.Parameter
    mixer: Tensor | None
    mixer_kind: Mixer
    experts: int
    awaits_gradient: bool

    @classmethod
    def adopt(cls, module: nn.Module, kind: Mixer, mixer: nn.Parameter | None, experts: int) -> None:
        """Turn a plain nn.Linear or nn.ConvNd into its mixed class, in place; its weight becomes `raw`."""
        raw = module._parameters.pop("weight")
        module.__class__ = MIXED_CLASSES[type(module)]
        module.register_parameter("raw", raw)
        if kind == "frozen":
            assert mixer is not None
            module.register_buffer("mixer", mixer.detach())
        else:
            module.register_parameter("mixer", mixer)
        adopted = cast(MixedFactor, module)
        adopted.mixer_kind, adopted.experts, adopted.awaits_gradient = kind, experts, False

    def unmix(self) -> None:
        """Turn back into the plain class, in place, with `M @ A` as the parameter `weight`."""
        weight = nn.Parameter(self.effective().detach(), requires_grad=self.raw.requires_grad)
        del self.raw, self.mixer, self.mixer_kind, self.experts, self.awaits_gradient
        plain = next(plain for plain, mixed in MIXED_CLASSES.items() if mixed is type(self))
        self.__class__ = plain  # type: ignore[assignment]
        self.register_parameter("weight", weight)

    def effective(self) -> Tensor:
        """`M @ A`, the shape of the plain A."""
        self.refuse_unset_mixer()
        if self.mixer is None:
            return fold_butterfly(self.raw, self.experts)
        if self.mixer_kind == "core":
            return fold_core(self.raw, self.mixer.to(self.raw.dtype))
        return fold(self.raw, _spread_like(self.raw, self.mixer.to(self.raw.dtype)))

    def refuse_unset_mixer(self) -> None:
        """Raise UnsupportedError if the mixer still waits for `moslora.initialize_mixer`."""
        if self.awaits_gradient:
            raise UnsupportedError(
                "This adapter has init_mixer='gradient', and its mixers have no values yet: call "
                "moslora.initialize_mixer(model, batches) first, or choose another init_mixer."
            )

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if f"{prefix}mixer" in state_dict:
            self.awaits_gradient = False

    @property
    def weight(self) -> Tensor:
        return EffectiveWeight.of(self.effective(), self.raw, self._write_effective)

    @weight.setter
    def weight(self, value: Tensor) -> None:
        self._write_effective(value)

    def _write_effective(self, value: Tensor) -> None:
        if value.dtype == self.raw.dtype and torch.equal(value, self.effective().detach()):
            return  # MultiheadAttention and others write back what they read
        if self.mixer is None or self.mixer_kind == "core":
            raise UnsupportedError(
                f"Tried to set the effective weight M @ A of a layer with the mixer {self.mixer_kind!r}, with which "
                "not every weight can be reached: use mixer='learnable' or mixer='identity' for this operation."
            )
        self.raw.data = solve_raw(value, self.mixer.data)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, mixer={self.mixer_kind}"


def _spread_like(raw: Tensor, M: Tensor) -> Tensor:
    """M, whole on every device, in the form that a product with A needs if tensor parallelism has cut A's columns."""
    mesh = getattr(raw, "device_mesh", None)
    if mesh is None or hasattr(M, "device_mesh"):
        return M
    from torch.distributed.tensor import DTensor, Replicate

    return DTensor.from_local(M, mesh, [Replicate()] * mesh.ndim, run_check=False)


def solve_raw(effective: Tensor, M: Tensor) -> Tensor:
    """`M^-1 @ effective`, the raw A behind a wanted product.

    Raises:
        UnsupportedError: M is singular.
    """
    try:
        return unfold(effective, M)
    except torch.linalg.LinAlgError:
        raise UnsupportedError(
            "The mixer M of this layer is singular, so no raw A gives the wanted M @ A: "
            "use init_mixer='orthogonal' or init_mixer='identity'."
        ) from None


class MixedLinear(MixedFactor, nn.Linear):
    """nn.Linear whose weight (r, d_in) is `M @ A`."""

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.effective(), self.bias)


class MixedConv1d(MixedFactor, nn.Conv1d):
    """nn.Conv1d whose kernel (r, channels, length) is `M @ A`."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.effective(), self.bias)


class MixedConv2d(MixedFactor, nn.Conv2d):
    """nn.Conv2d whose kernel (r, channels, height, width) is `M @ A`."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.effective(), self.bias)


class MixedConv3d(MixedFactor, nn.Conv3d):
    """nn.Conv3d whose kernel (r, channels, depth, height, width) is `M @ A`."""

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.effective(), self.bias)


class MixedBlockDiagonalLinear(MixedFactor, BlockDiagonalLinear):
    """PEFT's block-diagonal A of BD-LoRA, stored as (r, d_in / blocks), with a mixer for each block.

    A full mixer would fill the zeros between the blocks, which keep the devices of BD-LoRA independent.
    """


MIXED_CLASSES: dict[type[nn.Module], type[MixedFactor]] = {
    nn.Linear: MixedLinear,
    nn.Conv1d: MixedConv1d,
    nn.Conv2d: MixedConv2d,
    nn.Conv3d: MixedConv3d,
    BlockDiagonalLinear: MixedBlockDiagonalLinear,
}


class MixedEmbeddingFactors(nn.ParameterDict):
    """The `lora_embedding_B` of a layer: reading an entry gives the effective `B @ M`, iterating the raw B.

    An embedding keeps its mixer on the side of B: A has one column for every word. `B M A` is the same.

    Attributes:
        mixers: adapter -> M (r, r). The layer owns and saves it as `lora_embedding_mixer`.
        kinds: adapter -> mixer kind; adapters that are not listed have none.
    """

    def __init__(self, raw: nn.ParameterDict, mixers: nn.ParameterDict) -> None:
        super().__init__()
        self.kinds: dict[str, Mixer] = {}
        # A tuple hides the container from nn.Module: it must be saved once, by the layer.
        self._mixers = (mixers,)
        self._shows_raw = False
        self.update(raw)

    @property
    def mixers(self) -> nn.ParameterDict:
        return self._mixers[0]

    def raw(self, name: str) -> nn.Parameter:
        return super().__getitem__(name)

    @contextlib.contextmanager
    def raw_shown(self) -> Iterator[None]:
        """Let reading an entry give the raw B: where PEFT shares its storage or freezes it."""
        self._shows_raw = True
        try:
            yield
        finally:
            self._shows_raw = False

    def effective(self, name: str) -> Tensor:
        """`B @ M` (d, r)."""
        B = self.raw(name)
        if self.kinds[name] == "butterfly":
            return fold_butterfly(B.T).T
        return B @ self.mixers[name].to(B.dtype)

    def __getitem__(self, name: str) -> Any:
        if self._shows_raw or name not in self.kinds:
            return self.raw(name)
        return EffectiveWeight.of(self.effective(name), self.raw(name), lambda value: self._write(name, value))

    def __setitem__(self, name: str, value: Any) -> None:
        if name in self.kinds and isinstance(value, Tensor) and not isinstance(value, nn.Parameter):
            raw = self.raw(name)
            raw.data = raw.data.to(value.device, value.dtype)
            self._write(name, value.detach().as_subclass(Tensor))
        else:
            super().__setitem__(name, value)

    def __delitem__(self, name: str) -> None:
        self.kinds.pop(name, None)
        super().__delitem__(name)

    def items(self) -> Iterator[tuple[str, Any]]:
        return ((name, self.raw(name)) for name in self)

    def values(self) -> Iterator[Any]:
        return (self.raw(name) for name in self)

    def _write(self, name: str, value: Tensor) -> None:
        raw = self.raw(name)
        if torch.equal(value, self.effective(name).detach()):
            return
        if self.kinds[name] == "butterfly":
            raise UnsupportedError(
                "Tried to set the effective B @ M of an embedding with the butterfly mixer, which is singular: "
                "use mixer='learnable' or mixer='identity' for this operation."
            )
        raw.data = solve_raw(value.T, self.mixers[name].data.T).T.contiguous()
