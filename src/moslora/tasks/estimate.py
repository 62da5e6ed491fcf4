"""Parameters and memory of a run, from the model's config alone: nothing is downloaded or allocated.

The model is built on the meta device, where tensors have a shape and no content. Activations are not guessed from a
formula per architecture: one forward pass on that device shows which tensors autograd would keep.
"""

from collections.abc import Callable
from typing import Any, NamedTuple, Self

import torch
import transformers
from torch.overrides import TorchFunctionMode

from ..adapter import saved_bytes

ADAM_STATES = 2  # mean and variance of each gradient
LOSS_GRADIENTS = 2  # of the cross-entropy by the log-probabilities and by the logits
FORMULAS = (
    "weights: parameters x bytes of dtype",
    "adapter, gradients: 4 bytes per trained parameter each; AdamW: 8 bytes",
    "activations: what a forward pass of micro_batch_size x max_tokens keeps for the backward pass, fused attention",
    "loss: two gradients of one micro-batch's logits in float32, before and after its softmax",
)


class Estimate(NamedTuple):
    """Numbers of parameters, and bytes on one device."""

    total: int
    trainable: int
    dtype: str
    weight_bytes: int
    adapter_bytes: int
    gradient_bytes: int
    optimizer_bytes: int
    activation_bytes: int
    loss_bytes: int

    @property
    def bytes(self) -> int:
        """The sum. CUDA's context and fragmentation come on top."""
        parts = self.weight_bytes + self.adapter_bytes + self.gradient_bytes + self.optimizer_bytes
        return parts + self.activation_bytes + self.loss_bytes

    @classmethod
    def of(
        cls, *, total: int, trainable: int, dtype: torch.dtype, weight_bytes: int, activation_bytes: int, logits: int
    ) -> Self:
        """The numbers that follow from these.

        Args:
            total: parameters of the base.
            trainable: trained parameters; if they are all of the base, there is no adapter.
            dtype: of the base.
            weight_bytes: of the base.
            activation_bytes: what a forward pass keeps.
            logits: numbers of one micro-batch's logits.
        """
        return cls(
            total=total,
            trainable=trainable,
            dtype=str(dtype).removeprefix("torch."),
            weight_bytes=weight_bytes,
            adapter_bytes=0 if trainable == total else 4 * trainable,
            gradient_bytes=4 * trainable,
            optimizer_bytes=4 * ADAM_STATES * trainable,
            activation_bytes=activation_bytes,
            loss_bytes=LOSS_GRADIENTS * 4 * logits,
        )


def kept_bytes(
    adapted: torch.nn.Module, shape: tuple[int, int], dtype: torch.dtype = torch.float32, **inputs: torch.Tensor
) -> int:
    """Bytes that autograd keeps between forward and backward pass, parameters not counted.

    Args:
        adapted: a language model, on the meta device to allocate nothing.
        shape: samples and tokens of the micro-batch.
        dtype: of the computation; if it has 16 bits, products of matrices are computed in it, as in training.
        inputs: what the model is given beside tokens, their mask and labels.
    """
    batch, length = shape
    device = next(adapted.parameters()).device
    tokens = torch.zeros(shape, dtype=torch.long, device=device)
    mask = torch.ones((batch, 1, length, length), dtype=torch.bool, device=device)
    with _Autocast(dtype):
        loss = adapted(input_ids=tokens, attention_mask=mask, labels=tokens, use_cache=False, **inputs).loss
    return saved_bytes(loss, adapted)


def kept_bytes_checkpointed(
    base: transformers.PreTrainedModel, kept: Callable[[], int], layers: int, logits: int
) -> int:
    """The same with gradient checkpointing: the inputs of all layers, and what one layer keeps when computed again.

    That layer counts only as far as it is more than what the loss needs, which is gone by then.

    Args:
        base: the model inside the adapted one; it comes back unchanged.
        kept: runs a forward pass and counts.
        layers: of the language model, which stand for all.
        logits: numbers of one micro-batch's logits.
    """
    log_probabilities = 4 * logits
    loss = LOSS_GRADIENTS * 4 * logits + log_probabilities
    # Checkpointing computes again under saved-tensor hooks, where no activation is rebuilt.
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        one_layer = kept() // layers
    base.gradient_checkpointing_enable({"use_reentrant": True})  # keeps what the other kind does, but in the open
    base.disable_input_require_grads()  # transformers may just have added this hook, and forgets a first one
    base.enable_input_require_grads()
    try:
        return kept() + max(0, one_layer - loss)
    finally:
        base.gradient_checkpointing_disable()
        base.disable_input_require_grads()


class _Autocast(TorchFunctionMode):
    """What torch.autocast does to products of matrices, on the meta device, for which torch has none."""

    FUNCTIONS = (torch.nn.functional.linear, torch.matmul, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.bmm)

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if self.dtype != torch.float32 and func in self.FUNCTIONS:
            args = [self._cast(each) for each in args]
            kwargs = {name: self._cast(each) for name, each in (kwargs or {}).items()}
        return func(*args, **(kwargs or {}))

    def _cast(self, value: Any) -> Any:
        floating = isinstance(value, torch.Tensor) and value.is_floating_point()
        return value.to(self.dtype) if floating else value


def register_fused_attention() -> str:
    """The name by which transformers finds an attention that keeps what a GPU's fused kernel keeps."""
    transformers.AttentionInterface.register("fused", _fused_attention)
    return "fused"


def _fused_attention(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *_: Any, **__: Any
) -> tuple[torch.Tensor, None]:
    """Attention as a GPU's fused kernel keeps it: without its probabilities, which the meta device would count.

    query (batch, heads, tokens, head_dim), key and value with fewer heads -> (batch, tokens, heads, head_dim).
    """
    groups = query.shape[1] // key.shape[1]
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    attend = torch.ops.aten._scaled_dot_product_efficient_attention
    return attend(query, key, value, None, True)[0].transpose(1, 2), None
