"""Make the small diffusion model that comes with the package, all from one seed.

    python -m moslora.embedded.diffusion.build --out DIR

It draws pictures with captions, trains the autoencoder on them, and then the denoiser with both text encoders on its
latents. About half an hour of one core of an x86 CPU. It can be stopped at any time; the same command goes on. The same
seed gives the same pictures and tokenizer everywhere, and the same weights wherever torch computes with the same
kernels.
"""

import argparse
import shutil
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from .parts import new_scheduler, new_tokenizer
from .pictures import draw_motif

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

SEED = 0
TOKENIZER_CAPTIONS = 4000
AUTOENCODER_STEPS = 500
PICTURES = 3072  # for the denoiser
DENOISER_STEPS = 1000


def build(
    out: Path,
    autoencoder_steps: int = AUTOENCODER_STEPS,
    pictures: int = PICTURES,
    denoiser_steps: int = DENOISER_STEPS,
    seed: int = SEED,
) -> None:
    """Write a `StableDiffusionXLPipeline` folder.

    Args:
        out: made if missing. What a later call needs to go on is in `out`/unfinished until the end.
        autoencoder_steps: 8 pictures each.
        pictures: that the denoiser learns from.
        denoiser_steps: 32 pictures each.
        seed: of the pictures, the initial weights and the noise.
    """
    import torch
    from diffusers import StableDiffusionXLPipeline

    from .autoencoder import train_autoencoder
    from .denoiser import encode_pictures, train_denoiser

    unfinished = out / "unfinished"
    unfinished.mkdir(parents=True, exist_ok=True)
    tokenizer = build_tokenizer(seed)
    vae = train_autoencoder(autoencoder_steps, seed, unfinished / "autoencoder.pt")
    # What the denoiser learns from is what the rounded autoencoder makes.
    vae = vae.half().float()
    data = encode_pictures(vae, tokenizer, pictures, seed, unfinished / "pictures.pt")
    trained = train_denoiser(data, tokenizer, denoiser_steps, seed, unfinished / "denoiser.pt")
    # Half precision on disk for the large parts. transformers would load text encoders in the precision of their file.
    pipeline = StableDiffusionXLPipeline(
        vae=vae.to(torch.float16),
        unet=trained["unet"].to(torch.float16),
        text_encoder=trained["text_encoder"],
        text_encoder_2=trained["text_encoder_2"],
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        scheduler=new_scheduler(),
        add_watermarker=False,
    )
    pipeline.save_pretrained(out)
    for name in ("tokenizer", "tokenizer_2"):
        tokenizer.backend_tokenizer.model.save(str(out / name))  # vocab.json and merges.txt, for older versions
    shutil.rmtree(unfinished)


def build_tokenizer(seed: int = SEED) -> "CLIPTokenizer":
    """The tokenizer of both text encoders: every word of the captions is one token."""
    return new_tokenizer(
        [draw_motif(Random(f"{seed}/tokenizer/{number}")).caption for number in range(TOKENIZER_CAPTIONS)]
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    parser.add_argument("--autoencoder-steps", type=int, default=AUTOENCODER_STEPS)
    parser.add_argument("--pictures", type=int, default=PICTURES)
    parser.add_argument("--denoiser-steps", type=int, default=DENOISER_STEPS)
    parser.add_argument("--seed", type=int, default=SEED)
    build(**vars(parser.parse_args()))


if __name__ == "__main__":
    main()
