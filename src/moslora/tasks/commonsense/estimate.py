"""Estimates of commonsense fine-tuning."""

import math

import torch

from ...methods import FULL, trained_parameters
from ..estimate import Estimate, kept_bytes, kept_bytes_checkpointed, register_fused_attention
from ..models import resolve_dtype
from . import model
from .attach import attach_adapter, match_rank
from .config import CommonsenseTrainConfig, check


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
            attention = register_fused_attention()
            self.base = model.empty_model(
                base_config, config.trust_remote_code, dtype=self.dtype, attn_implementation=attention
            )
            self.total = sum(parameter.numel() for parameter in self.base.parameters())
            self.adapted = attach_adapter(self.base, self.config)
        self.trainable = trained_parameters(self.adapted)

    def estimate(self, micro_batch_size: int, gradient_checkpointing: bool) -> Estimate:
        """The numbers with this many samples per forward pass; the other settings are those of the run."""
        # Not under the meta device: LoHa and LoKr draw a number on the default device and look at it.
        shape = (micro_batch_size, self.config.max_tokens)
        adapted = self.adapted.train()

        def kept() -> int:
            return kept_bytes(adapted, shape, resolve_dtype(self.config.dtype))

        layers = self.text_config.num_hidden_layers
        logits = math.prod(shape) * self.text_config.vocab_size
        return Estimate.of(
            total=self.total,
            trainable=self.trainable,
            dtype=self.dtype,
            weight_bytes=self.total * self.dtype.itemsize,
            activation_bytes=kept_bytes_checkpointed(self.base, kept, layers, logits)
            if gradient_checkpointing
            else kept(),
            logits=logits,
        )
