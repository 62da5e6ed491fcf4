"""Dry runs: the published number of SDXL's parameters, and the activations that a real run keeps."""

import json

import pytest
import torch

from moslora.adapter import saved_bytes
from moslora.cli import main
from moslora.tasks.subject.attach import attach_adapters
from moslora.tasks.subject.estimate import estimate
from moslora.tasks.subject.objective import Objective
from moslora.tasks.subject.pictures import SUBJECT
from moslora.tasks.subject.pipeline import load_pipeline
from tests.tasks.subject.conftest import settings

UNET = {
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "attention_head_dim": [5, 10, 20],
    "block_out_channels": [320, 640, 1280],
    "cross_attention_dim": 2048,
    "down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"],
    "projection_class_embeddings_input_dim": 2816,
    "sample_size": 128,
    "transformer_layers_per_block": [1, 2, 10],
    "up_block_types": ["CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"],
    "use_linear_projection": True,
}
VAE = {
    "block_out_channels": [128, 256, 512, 512],
    "down_block_types": ["DownEncoderBlock2D"] * 4,
    "up_block_types": ["UpDecoderBlock2D"] * 4,
    "layers_per_block": 2,
    "force_upcast": True,
}
TEXT = {"model_type": "clip_text_model", "vocab_size": 49408, "max_position_embeddings": 77}
TEXTS = {
    "text_encoder": {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12, "num_attention_heads": 12},
    "text_encoder_2": {
        "hidden_size": 1280,
        "intermediate_size": 5120,
        "num_hidden_layers": 32,
        "num_attention_heads": 20,
        "projection_dim": 1280,
    },
}


@pytest.fixture
def sdxl_configs(tmp_path):
    """The sizes of stable-diffusion-xl-base-1.0, without weights."""
    parts = {"unet": UNET, "vae": VAE, **{name: {**TEXT, **sizes} for name, sizes in TEXTS.items()}}
    for name, config in parts.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_sdxl_has_its_published_parameters_and_the_adapter_r_times_inputs_and_outputs(sdxl_configs, photographs):
    numbers = estimate(settings(sdxl_configs, photographs, dtype="bfloat16", rank=4, resolution=1024))
    assert numbers.total == 2_567_463_684 + 123_060_480 + 694_659_840 + 83_653_863
    # 70 transformer blocks with two attentions of four layers; each mixer has 4 x 4 numbers.
    widths = {640: 10, 1280: 60}
    factors = sum(count * (4 * 2 * width + 2 * 2 * width + 2 * (width + 2048)) * 4 for width, count in widths.items())
    assert numbers.trainable == {"unet": factors + 70 * 8 * 16}


def test_activations_are_those_that_a_real_forward_pass_keeps(sdxl, photographs):
    config = settings(sdxl, photographs, resolution=64)
    pipeline = load_pipeline(sdxl, torch.float32)
    adapted = attach_adapters(pipeline, config)
    objective = Objective(pipeline, adapted, {SUBJECT: config.prompt}).train()
    latents = torch.zeros(4, 4, 32, 32)
    timesteps, time_ids = torch.zeros(4, dtype=torch.long), torch.zeros(4, 6)
    out = objective(stream=SUBJECT, latents=latents, noise=latents, timesteps=timesteps, time_ids=time_ids)
    real = saved_bytes(out.loss, objective)
    assert estimate(config).activation_bytes == pytest.approx(real, rel=0.05)


def test_gradient_checkpointing_keeps_less(sdxl, photographs):
    config = settings(sdxl, photographs, resolution=64)
    less = estimate(settings(sdxl, photographs, resolution=64, gradient_checkpointing=True))
    assert less.activation_bytes < 0.7 * estimate(config).activation_bytes


def test_the_command_prints_both_and_writes_nothing(sd15, photographs, capsys, tmp_path):
    words = ["train", "subject", "--model", str(sd15), "--images", str(photographs), "--prompt", "a photo of sks dog"]
    assert main([*words, "--train-text-encoders", "--dry-run", "--out", str(tmp_path / "run")]) == 0
    printed = capsys.readouterr().out
    assert "trainable parameters of unet" in printed
    assert "trainable parameters of text_encoder " in printed
    assert not (tmp_path / "run").exists()
