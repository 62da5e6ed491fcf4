"""The denoiser and the text encoders of the embedded diffusion model, trained together on latents of drawn pictures."""

from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

import torch
from rich.progress import track
from torch import Tensor, nn

from .autoencoder import as_pixels, encode
from .loop import Loop
from .parts import SIDE, new_scheduler, new_text_encoders, new_unet
from .pictures import Picture, draw_portrait

if TYPE_CHECKING:
    from diffusers import AutoencoderKL
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

BATCH_SIZE = 32  # pictures
RATES = 0.02, 2e-3
WITHOUT_CAPTION = 0.1  # share of pictures shown without their caption, for classifier-free guidance


class Encoded(NamedTuple):
    """Pictures as what the denoiser learns from; the first dimension counts pictures."""

    latents: Tensor  # scaled, (number, channels, rows, columns)
    tokens: Tensor  # (number, tokens)
    time_ids: Tensor  # original height and width, crop from top and left, target height and width: (number, 6)


def encode_pictures(model: "AutoencoderKL", tokenizer: "CLIPTokenizer", count: int, seed: int, file: Path) -> Encoded:
    """The first `count` pictures of a seed; read from the file if it is there, and written to it otherwise."""
    if file.exists():
        return Encoded(**torch.load(file, weights_only=True))
    latents, captions, time_ids = [], [], []
    for start in track(range(0, count, 32), "pictures"):
        pictures = [
            draw_portrait(Random(f"{seed}/denoiser/{number}")) for number in range(start, min(start + 32, count))
        ]
        latents.append(encode(model, as_pixels(picture.image for picture in pictures)) * model.config.scaling_factor)
        captions += [picture.caption for picture in pictures]
        time_ids += [_time_ids(picture) for picture in pictures]
    tokens = tokenizer(captions, padding="max_length", truncation=True, return_tensors="pt").input_ids
    encoded = Encoded(torch.cat(latents), tokens, torch.tensor(time_ids))
    torch.save(encoded._asdict(), file)
    return encoded


def train_denoiser(
    data: Encoded, tokenizer: "CLIPTokenizer", steps: int, seed: int, state: Path
) -> dict[str, nn.Module]:
    """The trained `unet`, `text_encoder` and `text_encoder_2`."""
    torch.manual_seed(seed)
    unet = new_unet().to(memory_format=torch.channels_last)
    first, second = new_text_encoders(tokenizer)
    loop = Loop({"unet": unet, "text_encoder": first, "text_encoder_2": second}, steps, RATES, state)
    kept = new_scheduler().alphas_cumprod  # share of the picture's variance at each of the noise levels

    def loss(step: int) -> Tensor:
        draw = torch.Generator().manual_seed(step)
        chosen = torch.randint(len(data.latents), (BATCH_SIZE,), generator=draw)
        captioned = torch.rand(BATCH_SIZE, generator=draw) >= WITHOUT_CAPTION
        times = torch.randint(len(kept), (BATCH_SIZE,), generator=draw)
        latents = data.latents[chosen]
        noise = torch.randn(latents.shape, generator=draw)
        signal, spread = (part[times, None, None, None] for part in (kept.sqrt(), (1 - kept).sqrt()))
        words, pooled = embed(first, second, data.tokens[chosen])
        added = {"text_embeds": pooled * captioned[:, None], "time_ids": data.time_ids[chosen]}
        found = unet(
            signal * latents + spread * noise, times, words * captioned[:, None, None], added_cond_kwargs=added
        ).sample
        return (found - (signal * noise - spread * latents)).square().mean()

    loop.run(loss, "denoiser")
    return dict(loop.modules.items())


def embed(first: "CLIPTextModel", second: "CLIPTextModelWithProjection", tokens: Tensor) -> tuple[Tensor, Tensor]:
    """The words as the denoiser reads them, (number, tokens, width), and the whole text, (number, projection)."""
    outputs = [encoder(tokens, output_hidden_states=True) for encoder in (first, second)]
    return torch.cat([output.hidden_states[-2] for output in outputs], dim=-1), outputs[1].text_embeds


def _time_ids(picture: Picture) -> tuple[float, ...]:
    """SDXL's six numbers."""
    return tuple(map(float, (picture.original_side, picture.original_side, *picture.crop, SIDE, SIDE)))
