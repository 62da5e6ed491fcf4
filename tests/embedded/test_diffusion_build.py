"""How the small diffusion model is made: its pictures, its optimiser, and a build that can be stopped."""

import contextlib
import dataclasses
import hashlib
import re
from collections import Counter
from random import Random

import numpy as np
import pytest
import torch

from moslora.embedded.characters import SUBJECT, shared_traits
from moslora.embedded.diffusion import build, diffusion_model_folder
from moslora.embedded.diffusion.autoencoder import _normalise, as_pixels, encode
from moslora.embedded.diffusion.loop import Loop
from moslora.embedded.diffusion.parts import LATENT_CHANNELS, TOKENS, new_autoencoder
from moslora.embedded.diffusion.pictures import MOST_SHARED, SIDE, draw_motif, draw_picture, new_creature

HASH_OF_SIXTY_PICTURES = "934f1f22094591a008f18bcfb2df7af3e5fc08f43a991f46d70663fc6fdd71b1"


def test_the_pictures_are_the_same_everywhere():
    found = hashlib.sha256()
    for number in range(60):
        picture = draw_picture(Random(f"0/autoencoder/{number}/0"))
        found.update(picture.image.tobytes())
        found.update(repr(picture[1:]).encode())
    assert found.hexdigest() == HASH_OF_SIXTY_PICTURES


def test_no_creature_of_the_pictures_is_like_the_subject():
    shared = [shared_traits(new_creature(Random(seed)), SUBJECT) for seed in range(20_000)]
    assert max(shared) == MOST_SHARED == 3
    assert sum(number == MOST_SHARED for number in shared) > 100, "some are as near as they may be"


def test_every_trait_of_the_subject_occurs_in_the_pictures():
    creatures = [new_creature(Random(seed)) for seed in range(500)]
    for field in dataclasses.fields(SUBJECT):
        assert getattr(SUBJECT, field.name) in {getattr(creature, field.name) for creature in creatures}


def test_pictures_made_of_smaller_ones_are_blurred_and_cuts_are_those_of_the_numbers():
    pictures = [draw_picture(Random(seed)) for seed in range(400)]
    assert all(picture.image.size == (SIDE, SIDE) for picture in pictures)
    sharpness = {True: [], False: []}
    for picture in pictures:
        pixels = np.asarray(picture.image).astype(float)
        sharpness[picture.original_side < SIDE].append(np.abs(np.diff(pixels, axis=1)).max())
    assert np.mean(sharpness[True]) < 0.7 * np.mean(sharpness[False])
    cut = [picture for picture in pictures if picture.crop != (0, 0)]
    assert 20 < len(cut) < 80
    assert all(max(picture.crop) <= picture.original_side - SIDE for picture in cut)


@pytest.fixture(scope="module")
def tokenizer():
    return build.build_tokenizer()


def test_every_word_of_the_captions_is_one_token_and_every_caption_fits(tokenizer):
    captions = [draw_motif(Random(f"other/{number}")).caption for number in range(2000)]
    words = Counter(word for caption in captions for word in re.findall(r"\w+|[^\w\s]", caption))
    common = [word for word, count in words.items() if count > 5]  # the others are invented names
    assert len(common) > 60
    assert [word for word in common if len(tokenizer(word).input_ids) != 3] == []
    assert max(len(tokenizer(caption).input_ids) for caption in captions) <= TOKENS


@pytest.mark.parametrize("text", ["sks creature", "zebra 42", "Ünïcode 日本語 🎻"])
def test_every_text_has_tokens_and_the_end_is_the_last_one(tokenizer, text):
    ids = tokenizer(text).input_ids
    assert tokenizer.eos_token_id == len(tokenizer) - 1
    assert ids[-1] == tokenizer.eos_token_id
    assert ids[1:-1]
    assert tokenizer.eos_token_id not in ids[1:-1], "no byte is unknown"
    assert tokenizer.decode(ids, skip_special_tokens=True).replace(" ", "") == text.lower().replace(" ", "")


def test_the_build_makes_the_tokenizer_that_is_shipped(tokenizer):
    from transformers import CLIPTokenizer

    for folder in ("tokenizer", "tokenizer_2"):
        shipped = CLIPTokenizer.from_pretrained(diffusion_model_folder() / folder)
        assert shipped.get_vocab() == tokenizer.get_vocab()
        assert shipped.model_max_length == TOKENS


def _toy_losses(state, steps, until=None):
    """Losses of a toy problem, and the weights at the end."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Linear(3, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    losses = []

    def loss(step):
        if step == until:
            raise KeyboardInterrupt
        x = torch.randn(16, 3, generator=torch.Generator().manual_seed(step))
        value = (net(x) - x.sum(1, keepdim=True)).square().mean()
        losses.append(value.item())
        return value

    loop = Loop({"net": net}, steps, (0.02, 1e-2), state)
    with contextlib.suppress(KeyboardInterrupt):
        loop.run(loss, "toy")
    return losses, net.state_dict()


def test_a_training_that_is_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    losses, weights = _toy_losses(tmp_path / "whole.pt", 80)
    _toy_losses(tmp_path / "parts.pt", 80, until=60)
    rest, resumed = _toy_losses(tmp_path / "parts.pt", 80)
    assert rest == losses[-len(rest) :]
    assert 0 < len(rest) < 80
    assert all(torch.equal(weights[name], resumed[name]) for name in weights)
    assert np.mean(losses[-10:]) < np.mean(losses[:10])


def test_latents_have_mean_zero_and_deviation_one_after_scaling_and_decode_to_the_same(tmp_path):
    torch.manual_seed(0)
    model = new_autoencoder().eval()
    pixels = as_pixels(draw_picture(Random(seed)).image for seed in range(8))
    with torch.no_grad():
        before, posterior = model.decode(encode(model, pixels)).sample, model.encode(pixels).latent_dist
        ratio = posterior.std / posterior.mean.std((0, 2, 3), keepdim=True)
        _normalise(model, encode(model, pixels))
        scaled = encode(model, pixels) * model.config.scaling_factor
        after, posterior = model.decode(encode(model, pixels)).sample, model.encode(pixels).latent_dist
    torch.testing.assert_close(scaled.mean((0, 2, 3)), torch.zeros(LATENT_CHANNELS), atol=1e-4, rtol=0)
    torch.testing.assert_close(scaled.std((0, 2, 3)), torch.ones(LATENT_CHANNELS), atol=1e-4, rtol=0)
    torch.testing.assert_close(after, before, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(posterior.std / posterior.mean.std((0, 2, 3), keepdim=True), ratio)


@pytest.mark.slow
def test_a_short_build_writes_a_pipeline_with_the_shapes_of_the_shipped_one_and_repeats(tmp_path):
    from safetensors.torch import load_file

    for name in ("one", "again"):
        build.build(tmp_path / name, autoencoder_steps=2, pictures=32, denoiser_steps=2)
    for path in sorted(diffusion_model_folder().rglob("*.safetensors")):
        relative = path.relative_to(diffusion_model_folder())
        one, again, shipped = (
            load_file(folder / relative) for folder in (tmp_path / "one", tmp_path / "again", diffusion_model_folder())
        )
        assert {key: value.shape for key, value in one.items()} == {key: value.shape for key, value in shipped.items()}
        assert all(torch.equal(one[key], again[key]) for key in one)
