"""Whole tiny pipelines in the forms of SDXL and of Stable Diffusion 1.5, with random weights and a local tokenizer."""

from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    EulerDiscreteScheduler,
    PNDMScheduler,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
)
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear", "num_train_timesteps": 1000}
WIDTH = 32


def tokenizer() -> CLIPTokenizer:
    """CLIP's tokenizer without merges: every letter is a token."""
    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,-"
    tokens = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    return CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=48)


def _text_config(words: int) -> CLIPTextConfig:
    return CLIPTextConfig(
        vocab_size=words,
        hidden_size=WIDTH,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        max_position_embeddings=48,
        projection_dim=WIDTH,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )


def _vae() -> AutoencoderKL:
    return AutoencoderKL(
        block_out_channels=(16, 16),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        norm_num_groups=8,
        latent_channels=4,
        sample_size=32,
        scaling_factor=0.13025,
    )


def _unet(**settings: Any) -> UNet2DConditionModel:
    sizes = {
        "block_out_channels": (32, 64),
        "layers_per_block": 1,
        "sample_size": 16,
        "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "UpBlock2D"),
        "norm_num_groups": 8,
    }
    return UNet2DConditionModel(**{**sizes, **settings})


def write_sdxl(folder: Path, prediction_type: str = "epsilon") -> Path:
    """A pipeline of SDXL's form with pictures of 32 x 32 pixels."""
    torch.manual_seed(0)
    words = tokenizer()
    unet = _unet(
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 2),
        projection_class_embeddings_input_dim=6 * 8 + WIDTH,
        cross_attention_dim=2 * WIDTH,
    )
    StableDiffusionXLPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(len(words))),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(len(words))),
        tokenizer=words,
        tokenizer_2=words,
        unet=unet,
        scheduler=EulerDiscreteScheduler(**BETAS, prediction_type=prediction_type, steps_offset=1),
    ).save_pretrained(folder)
    return folder


def write_sd15(folder: Path) -> Path:
    """A pipeline of the form of Stable Diffusion 1.5, without its safety checker."""
    torch.manual_seed(0)
    words = tokenizer()
    StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(len(words))),
        tokenizer=words,
        unet=_unet(attention_head_dim=4, cross_attention_dim=WIDTH),
        scheduler=PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder
