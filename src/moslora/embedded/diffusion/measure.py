"""Measure how well pictures follow their captions, by the colours that are in them.

    python -m moslora.embedded.diffusion.measure --model DIR

Draws creatures of every colour on every ground and prints the share of pictures whose ground is the one of the caption
and the share whose creature has the colour of the caption; for pictures that the package draws itself, too, since a
creature may have a second colour, and snow is nearly white.
"""

import argparse
from collections import Counter
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from PIL import Image

from ..characters import SKINS, Pose, paint
from ..scenes import BACKGROUNDS, COLOURS, Scene, place_name, render, with_article
from . import diffusion_model_folder
from .parts import SIDE
from .pictures import new_creature

if TYPE_CHECKING:
    from diffusers import StableDiffusionXLPipeline

FRAME = 4  # pixels at the edge that show the ground
FAR = 60.0  # distance in RGB from which a pixel is no longer ground
COUNT, STEPS, GUIDANCE = 200, 25, 5.0
BATCH = 20


class Followed(NamedTuple):
    """Shares of pictures in [0, 1]."""

    ground: float  # of 20
    colour: float  # of 11


def draw_wishes(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Colours of creatures and the grounds that they stand on, all about equally often."""
    draw = Random(f"wishes/{seed}")
    pairs = [(skin, ground) for skin in SKINS for ground in BACKGROUNDS if skin != ground]
    return draw.sample(pairs, count)


def to_prompt(skin: str, ground: str) -> str:
    """The caption of one wish."""
    return f"a photo of {with_article(skin)} creature {place_name(ground)}"


def found_ground(image: Image.Image) -> str:
    """The ground whose colour at the edge is nearest to that of the picture."""
    edge = _edge(image)
    edges = _ground_edges()
    return min(edges, key=lambda name: float(np.abs(edge - edges[name]).sum()))


def found_colour(image: Image.Image) -> str:
    """The colour of most pixels that are not ground, apart from black, which is that of outlines."""
    pixels = np.asarray(image.convert("RGB")).astype(float).reshape(-1, 3)
    figure = pixels[np.linalg.norm(pixels - _edge(image), axis=1) > FAR]
    palette = np.array([COLOURS[name] for name in SKINS] + [COLOURS["black"]], dtype=float)
    nearest = np.linalg.norm(figure[:, None] - palette, axis=2).argmin(axis=1)
    counts = Counter(nearest[nearest < len(SKINS)].tolist())
    return SKINS[counts.most_common(1)[0][0]] if counts else "none"


def followed(images: list[Image.Image], wishes: list[tuple[str, str]]) -> Followed:
    """How many of the pictures are what was wished for."""
    grounds = [found_ground(image) == ground for image, (_, ground) in zip(images, wishes, strict=True)]
    colours = [found_colour(image) == skin for image, (skin, _) in zip(images, wishes, strict=True)]
    return Followed(sum(grounds) / len(grounds), sum(colours) / len(colours))


def draw_by_hand(wishes: list[tuple[str, str]], seed: int = 0) -> list[Image.Image]:
    """Pictures of these wishes as the model was shown them."""
    images = []
    for number, (skin, ground) in enumerate(wishes):
        draw = Random(f"by hand/{seed}/{number}")
        while (creature := new_creature(draw)).colour != skin:
            pass
        images.append(paint(render(Scene(items=(), background=ground, seed=number), SIDE), creature, Pose(size=0.8)))
    return images


def draw_with(
    pipeline: "StableDiffusionXLPipeline", wishes: list[tuple[str, str]], steps: int = STEPS, seed: int = 0
) -> list[Image.Image]:
    """Pictures of these wishes by a pipeline."""
    import torch

    images: list[Any] = []
    for start in range(0, len(wishes), BATCH):
        prompts = [to_prompt(*wish) for wish in wishes[start : start + BATCH]]
        noise = [torch.Generator().manual_seed(10_000 * seed + start + number) for number in range(len(prompts))]
        images += pipeline(prompts, generator=noise, num_inference_steps=steps, guidance_scale=GUIDANCE).images
    return images


def _edge(image: Image.Image) -> np.ndarray:
    """Median colour of the frame of a picture, (3,)."""
    pixels = np.asarray(image.convert("RGB")).astype(float)
    inside = np.zeros(pixels.shape[:2], dtype=bool)
    inside[FRAME:-FRAME, FRAME:-FRAME] = True
    return np.median(pixels[~inside], axis=0)


@cache
def _ground_edges() -> dict[str, np.ndarray]:
    return {name: _edge(render(Scene(items=(), background=name), SIDE)) for name in BACKGROUNDS}


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=diffusion_model_folder(), help="folder of a pipeline")
    parser.add_argument("--count", type=int, default=COUNT, help="pictures")
    arguments = parser.parse_args()
    from diffusers import StableDiffusionXLPipeline

    pipeline = StableDiffusionXLPipeline.from_pretrained(arguments.model)
    pipeline.set_progress_bar_config(disable=True)
    wishes = draw_wishes(arguments.count)
    for name, images in (("model", draw_with(pipeline, wishes)), ("drawn by the package", draw_by_hand(wishes))):
        shares = followed(images, wishes)
        print(f"{name}: ground {shares.ground:.0%}, colour of the creature {shares.colour:.0%}, {len(images)} pictures")


if __name__ == "__main__":
    main()
