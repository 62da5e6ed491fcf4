"""Estimates of visual instruction tuning."""

import math

import torch

from ...methods import FULL, trained_parameters
from ..estimate import Estimate, kept_bytes, kept_bytes_checkpointed, register_fused_attention
from ..models import resolve_dtype
from . import model
from .attach import attach_adapter
from .config import VisionLanguageTrainConfig, check
from .model import LANGUAGE_MODEL

BLOCK, WIDE_BLOCK = 64, 256  # weights that share a constant in 4 bits, and such constants that share one themselves


def estimate(config: VisionLanguageTrainConfig) -> Estimate:
    """Estimate a run, of rows that all have an image and as many tokens as allowed.

    Args:
        config: all settings; `config.model` may be a folder that holds nothing but config.json.

    Raises:
        ConfigError: a setting, model config or method that cannot be used.
    """
    check(config)
    base_config = model.load_config(config.model, config.trust_remote_code)
    dtype = torch.float32 if config.method == FULL else resolve_dtype(config.dtype)
    with torch.device("meta"):
        attention = register_fused_attention()
        base = model.empty_model(base_config, config.trust_remote_code, dtype=dtype, attn_implementation=attention)
        total = sum(parameter.numel() for parameter in base.parameters())
        size = weight_bytes(base, dtype, config)
        adapted = attach_adapter(base, config).train()
    shape = (config.micro_batch_size, config.max_tokens)
    text, vision = base_config.get_text_config(), base_config.vision_config
    pictures = torch.empty(
        (shape[0], vision.num_channels, vision.image_size, vision.image_size), dtype=dtype, device="meta"
    )
    # The model counts image tokens and would look at what is in them; here nothing is.
    base.model.get_placeholder_mask = lambda ids, inputs_embeds, image_features: torch.empty(
        (*shape, 1), dtype=torch.bool, device="meta"
    )

    def kept() -> int:
        return kept_bytes(adapted, shape, resolve_dtype(config.dtype), pixel_values=pictures)

    checkpointed = config.gradient_checkpointing
    logits = math.prod(shape) * text.vocab_size
    return Estimate.of(
        total=total,
        trainable=trained_parameters(adapted),
        dtype=dtype,
        weight_bytes=size,
        activation_bytes=kept_bytes_checkpointed(base, kept, text.num_hidden_layers, logits)
        if checkpointed
        else kept(),
        logits=logits,
    )


def weight_bytes(base: torch.nn.Module, dtype: torch.dtype, config: VisionLanguageTrainConfig) -> int:
    """Bytes of the base, with the language model's linear layers in 4 or 8 bits if the settings say so."""
    plain = quantized = 0
    linear = {
        id(module.weight)
        for name, module in base.named_modules()
        if f".{LANGUAGE_MODEL}." in name and isinstance(module, torch.nn.Linear)
    }
    for parameter in base.parameters():
        if config.quantize != "none" and id(parameter) in linear:
            quantized += _quantized_bytes(parameter, config)
        else:
            plain += parameter.numel() * dtype.itemsize
    return plain + quantized


def _quantized_bytes(weight: torch.Tensor, config: VisionLanguageTrainConfig) -> int:
    if config.quantize == "int8":
        return weight.numel() + 4 * weight.shape[0]  # a constant a row
    constants = -(-weight.numel() // BLOCK)
    if not config.double_quantize:
        return weight.numel() // 2 + 4 * constants
    return weight.numel() // 2 + constants + 4 * -(-constants // WIDE_BLOCK)
