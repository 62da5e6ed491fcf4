"""The shipped diffusion model: its files, that stock diffusers loads it, and that it does what captions say."""

import hashlib
import json

import numpy as np
import pytest
import torch
from PIL import Image

from moslora.embedded import diffusion_model_folder
from moslora.embedded.diffusion.measure import (
    BACKGROUNDS,
    SKINS,
    draw_by_hand,
    draw_wishes,
    draw_with,
    followed,
    found_colour,
    found_ground,
)
from tests.helpers import run_stock_peft

WEIGHTS = ("text_encoder/model", "text_encoder_2/model", "unet/diffusion_pytorch_model", "vae/diffusion_pytorch_model")

STOCK_DIFFUSERS = """
import numpy, torch, diffusers
pipeline = diffusers.StableDiffusionXLPipeline.from_pretrained(args[0])
pipeline.set_progress_bar_config(disable=True)
image = pipeline("a photo of a red creature on grass", num_inference_steps=4, output_type="np",
                 generator=torch.Generator().manual_seed(0)).images[0]
numpy.save(args[1], image)
"""


@pytest.fixture(scope="module")
def pipeline():
    from diffusers import StableDiffusionXLPipeline

    loaded = StableDiffusionXLPipeline.from_pretrained(diffusion_model_folder())
    loaded.set_progress_bar_config(disable=True)
    return loaded


def _weights() -> list[bytes]:
    return [(diffusion_model_folder() / f"{name}.safetensors").read_bytes() for name in WEIGHTS]


def test_all_folders_together_are_small():
    files = [path for path in diffusion_model_folder().rglob("*") if path.is_file()]
    assert {f"{name}.safetensors" for name in WEIGHTS} == {
        path.relative_to(diffusion_model_folder()).as_posix() for path in files if path.suffix == ".safetensors"
    }
    assert sum(path.stat().st_size for path in files) < 16_000_000


def test_the_model_card_states_parameters_and_hashes_of_the_weights(pipeline):
    card = (diffusion_model_folder() / "README.md").read_text(encoding="utf-8")
    for name in ("unet", "vae", "text_encoder", "text_encoder_2"):
        count = sum(parameter.numel() for parameter in getattr(pipeline, name).parameters())
        assert f"{count:,}" in card, name
    for weights in _weights():
        assert hashlib.sha256(weights).hexdigest() in card


def test_nothing_of_this_machine_is_in_the_files():
    for path in diffusion_model_folder().rglob("*config.json"):
        values = json.loads(path.read_text(encoding="utf-8")).values()
        assert not [value for value in values if isinstance(value, str) and value.startswith("/")], path


def test_stock_diffusers_in_another_process_draws_the_same_picture(pipeline, tmp_path):
    run_stock_peft(STOCK_DIFFUSERS, diffusion_model_folder(), tmp_path / "picture.npy")
    expected = pipeline(
        "a photo of a red creature on grass",
        num_inference_steps=4,
        output_type="np",
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    assert expected.shape == (64, 64, 3)
    np.testing.assert_allclose(np.load(tmp_path / "picture.npy"), expected, atol=1e-5)


def test_the_parts_are_those_of_sdxl(pipeline):
    config = pipeline.unet.config
    assert config.addition_embed_type == "text_time"
    assert tuple(config.down_block_types) == ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D")
    widths = [encoder.config.hidden_size for encoder in (pipeline.text_encoder, pipeline.text_encoder_2)]
    assert config.cross_attention_dim == sum(widths)
    projection = pipeline.text_encoder_2.config.projection_dim
    assert config.projection_class_embeddings_input_dim == projection + 6 * config.addition_time_embed_dim
    assert all(part.dtype == torch.float32 for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder))


@pytest.mark.parametrize("changed", ["text", "pooled text", "original size"])
def test_every_condition_reaches_the_denoiser(pipeline, changed):
    draw = torch.Generator().manual_seed(0)
    one, other = (
        pipeline.encode_prompt(text, do_classifier_free_guidance=False)
        for text in ("a red creature on sand", "a blue creature in the water")
    )
    words, pooled = (other if changed == "text" else one)[0], (other if changed == "pooled text" else one)[2]
    side = 24.0 if changed == "original size" else 64.0
    latents, ids = torch.randn(1, 6, 16, 16, generator=draw), [side, side, 0.0, 0.0, 64.0, 64.0]

    def predict(words, pooled, ids):
        added = {"text_embeds": pooled, "time_ids": torch.tensor([ids])}
        with torch.no_grad():
            return pipeline.unet(latents, 600, words, added_cond_kwargs=added).sample

    base = predict(one[0], one[2], [64.0, 64.0, 0.0, 0.0, 64.0, 64.0])
    assert (predict(words, pooled, ids) - base).abs().mean() > 0.0005 * base.abs().mean()


def test_pictures_survive_the_autoencoder(pipeline):
    wishes = draw_wishes(24, seed=1)
    images = draw_by_hand(wishes, seed=1)
    pixels = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        decoded = pipeline.vae.decode(pipeline.vae.encode(pixels).latent_dist.mean).sample.clamp(-1, 1)
    assert (decoded - pixels).abs().mean() < 0.08
    back = [Image.fromarray(((each.permute(1, 2, 0) + 1) * 127.5).round().byte().numpy()) for each in decoded]
    assert followed(back, wishes).ground > 0.8


def test_the_measure_finds_what_is_in_drawn_pictures():
    wishes = draw_wishes(60)
    images = draw_by_hand(wishes)
    assert followed(images, wishes).ground > 0.95
    assert followed(images, wishes).colour > 0.6, "a creature may have a second colour"
    assert {found_ground(image) for image in images} <= set(BACKGROUNDS)
    assert {found_colour(image) for image in images} <= set(SKINS)


def test_captions_are_followed_far_better_than_by_chance(pipeline):
    wishes = draw_wishes(20, seed=2)
    shares = followed(draw_with(pipeline, wishes, steps=12, seed=2), wishes)
    assert shares.ground > 0.5, "chance is 0.05"
    assert shares.colour > 0.3, "chance is 0.09"
