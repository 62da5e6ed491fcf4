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
    check(config)
    base_config = model.load_config(config.model, config.trust_remote_code)
    config = match_rank(config, base_config)
    full = config.method == FULL
    dtype = torch.float32 if full else model.resolve_dtype(config.dtype)
    with torch.device("meta"):
        base = _empty_model(base_config, dtype, config.trust_remote_code)
        total = sum(parameter.numel() for parameter in base.parameters())
        adapted = attach_adapter(base, config)
        trainable = trained_parameters(adapted)
    # Outside: LoHa and LoKr draw a number on the default device and look at it.
    shape = (config.micro_batch_size, config.max_tokens)
    layers = base_config.get_text_config().num_hidden_layers
    if config.gradient_checkpointing:
        kept = _kept_bytes_checkpointed(base, adapted.train(), shape, layers)
    else:
        kept = kept_bytes(adapted.train(), shape)
    return Estimate(
        total=total,
        trainable=trainable,
        dtype=str(dtype).removeprefix("torch."),
        weight_bytes=total * dtype.itemsize,
        adapter_bytes=0 if full else 4 * trainable,
        gradient_bytes=4 * trainable,
        optimizer_bytes=4 * ADAM_STATES * trainable,
        activation_bytes=kept,
        loss_bytes=4 * math.prod(shape) * base_config.get_text_config().vocab_size,
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
    base.enable_input_require_grads()
    base.gradient_checkpointing_enable({"use_reentrant": True})  # keeps what the other kind does, but in the open
    return kept_bytes(adapted, shape) + one_layer


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
