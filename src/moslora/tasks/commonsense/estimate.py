"""Parameters and memory of a run, from the model's config alone: nothing is downloaded or allocated.

The model is built on the meta device, where tensors have a shape and no content. Activations are not guessed from a
formula per architecture: one forward pass on that device shows which tensors autograd would keep.
"""

import math
from typing import Any, NamedTuple

import torch
import transformers

from ...adapter import saved_bytes
from ...methods import FULL, trained_parameters
from ..models import resolve_dtype
from . import model
from .attach import attach_adapter, match_rank
from .config import CommonsenseTrainConfig, check

ADAM_STATES = 2  # mean and variance of each gradient
FORMULAS = (
    "weights: parameters x bytes of dtype",
    "adapter, gradients: 4 bytes per trained parameter each; AdamW: 8 bytes",
    "activations: what a forward pass of micro_batch_size x max_tokens keeps for the backward pass, fused attention",
    "loss: the gradient of one micro-batch's logits in float32",
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


def estimate(config: CommonsenseTrainConfig) -> Estimate:
    """Estimate a run.

    Args:
        config: all settings; `config.model` may be a folder that holds nothing but config.json.

    Raises:
        ConfigError: a setting, model config or method that cannot be used.
    """
    return EmptyRun(config).estimate(config.micro_batch_size, config.gradient_checkpointing)


class EmptyRun:
    """The model of a run on the meta device, to be estimated for several micro-batches.

    Args:
        config: as for `estimate`.

    Raises:
        ConfigError: a setting, model config or method that cannot be used.
    """

    def __init__(self, config: CommonsenseTrainConfig) -> None:
        check(config)
        base_config = model.load_config(config.model, config.trust_remote_code)
        self.config = match_rank(config, base_config)
        self.full = config.method == FULL
        self.dtype = torch.float32 if self.full else resolve_dtype(config.dtype)
        self.text_config = base_config.get_text_config()
        with torch.device("meta"):
            self.base = _empty_model(base_config, self.dtype, config.trust_remote_code)
            self.total = sum(parameter.numel() for parameter in self.base.parameters())
            self.adapted = attach_adapter(self.base, self.config)
        self.trainable = trained_parameters(self.adapted)

    def estimate(self, micro_batch_size: int, gradient_checkpointing: bool) -> Estimate:
        """The numbers with this many samples per forward pass; the other settings are those of the run."""
        # Not under the meta device: LoHa and LoKr draw a number on the default device and look at it.
        shape = (micro_batch_size, self.config.max_tokens)
        if gradient_checkpointing:
            kept = _kept_bytes_checkpointed(self.base, self.adapted.train(), shape, self.text_config.num_hidden_layers)
        else:
            kept = kept_bytes(self.adapted.train(), shape)
        return Estimate(
            total=self.total,
            trainable=self.trainable,
            dtype=str(self.dtype).removeprefix("torch."),
            weight_bytes=self.total * self.dtype.itemsize,
            adapter_bytes=0 if self.full else 4 * self.trainable,
            gradient_bytes=4 * self.trainable,
            optimizer_bytes=4 * ADAM_STATES * self.trainable,
            activation_bytes=kept,
            loss_bytes=4 * math.prod(shape) * self.text_config.vocab_size,
        )


def kept_bytes(adapted: torch.nn.Module, shape: tuple[int, int]) -> int:
    """Bytes that autograd keeps between forward and backward pass, parameters not counted.

    Args:
        adapted: a causal language model, on the meta device to allocate nothing.
        shape: samples and tokens of the micro-batch.
    """
    batch, length = shape
    device = next(adapted.parameters()).device
    tokens = torch.zeros(shape, dtype=torch.long, device=device)
    mask = torch.ones((batch, 1, length, length), dtype=torch.bool, device=device)
    loss = adapted(input_ids=tokens, attention_mask=mask, labels=tokens, use_cache=False).loss
    return saved_bytes(loss, adapted)


def _kept_bytes_checkpointed(
    base: transformers.PreTrainedModel, adapted: torch.nn.Module, shape: tuple[int, int], layers: int
) -> int:
    """The same with gradient checkpointing: the inputs of all layers, and what one layer keeps when computed again."""
    # Checkpointing computes again under saved-tensor hooks, where no activation is rebuilt.
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        one_layer = kept_bytes(adapted, shape) // layers
    base.gradient_checkpointing_enable({"use_reentrant": True})  # keeps what the other kind does, but in the open
    base.disable_input_require_grads()  # transformers may just have added this hook, and forgets a first one
    base.enable_input_require_grads()
    try:
        return kept_bytes(adapted, shape) + one_layer
    finally:
        base.gradient_checkpointing_disable()
        base.disable_input_require_grads()


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


def _empty_model(config: Any, dtype: torch.dtype, trust_remote_code: bool) -> transformers.PreTrainedModel:
    transformers.AttentionInterface.register("fused", _fused_attention)
    return model.empty_model(config, trust_remote_code, dtype=dtype, attn_implementation="fused")
