"""Small models of real architectures, with the layers that MoSLoRA adapts in them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    MixtralConfig,
    MixtralForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    ViTConfig,
    ViTForImageClassification,
)

from tests.helpers import tiny_llama


@dataclass(frozen=True)
class Architecture:
    """How to build a model, feed it and adapt it."""

    build: Callable[[], nn.Module]
    inputs: Callable[[], dict[str, Tensor]]
    config: dict[str, Any]


def words(shape: tuple[int, ...] = (2, 7)) -> Tensor:
    return torch.randint(1, 60, shape, generator=torch.Generator().manual_seed(0))


def _gpt2() -> nn.Module:
    return GPT2LMHeadModel(GPT2Config(vocab_size=64, n_positions=32, n_embd=32, n_layer=2, n_head=4))


def _bert() -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    return BertForSequenceClassification(BertConfig(vocab_size=64, num_labels=3, **sizes))


def _mixtral() -> nn.Module:
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    return MixtralForCausalLM(MixtralConfig(vocab_size=64, num_key_value_heads=2, num_local_experts=4, **sizes))


def _t5() -> nn.Module:
    return T5ForConditionalGeneration(
        T5Config(vocab_size=64, d_model=32, d_kv=8, d_ff=48, num_layers=2, num_heads=4, decoder_start_token_id=0)
    )


def _vit() -> nn.Module:
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    return ViTForImageClassification(ViTConfig(image_size=16, patch_size=4, num_labels=3, **sizes))


def sdxl_unet() -> nn.Module:
    """A UNet with SDXL's text-and-time conditioning, cross attention and two resolutions."""
    from diffusers import UNet2DConditionModel

    torch.manual_seed(0)
    return UNet2DConditionModel(
        block_out_channels=(32, 64),
        layers_per_block=1,
        sample_size=8,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=6 * 8 + 32,
        cross_attention_dim=16,
        norm_num_groups=8,
    ).eval()


def unet_inputs() -> dict[str, Any]:
    draw = torch.Generator().manual_seed(0)
    return {
        "sample": torch.randn(2, 4, 8, 8, generator=draw),
        "timestep": torch.tensor([10, 500]),
        "encoder_hidden_states": torch.randn(2, 5, 16, generator=draw),
        "added_cond_kwargs": {
            "text_embeds": torch.randn(2, 32, generator=draw),
            "time_ids": torch.randint(0, 8, (2, 6), generator=draw),
        },
    }


def _pixels() -> dict[str, Tensor]:
    return {"pixel_values": torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))}


def _language() -> dict[str, Tensor]:
    return {"input_ids": words()}


TRANSFORMERS = {
    "gpt2": Architecture(_gpt2, _language, {"target_modules": ["c_attn", "c_fc"], "fan_in_fan_out": True}),
    "bert": Architecture(
        _bert, _language, {"target_modules": ["query", "value", "dense", "word_embeddings"], "task_type": "SEQ_CLS"}
    ),
    "llama": Architecture(tiny_llama, _language, {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}),
    "mixtral": Architecture(
        _mixtral,
        _language,
        {
            "target_modules": ["q_proj", "v_proj"],
            "target_parameters": ["experts.gate_up_proj", "experts.down_proj"],
            "task_type": "CAUSAL_LM",
        },
    ),
    "t5": Architecture(
        _t5, lambda: {"input_ids": words(), "decoder_input_ids": words((2, 5))}, {"target_modules": ["q", "v", "wi"]}
    ),
    "vit": Architecture(_vit, _pixels, {"target_modules": ["query", "value", "q_proj", "v_proj", "projection"]}),
}
