"""What the small vision-language model knows: how many statements about new scenes it completes to the letter.

python -m moslora.embedded.vision.knowledge DIR
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from ..scenes import Scene
from .build import IGNORED, ROOM, to_batch
from .phrases import Statement, fill
from .statements import FREE_KINDS, GRID_KINDS, Maker
from .world import draw_free, draw_grid, draw_picture

if TYPE_CHECKING:
    from PIL.Image import Image
    from torch import Tensor
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

SEED = 1_000_000  # far from the seeds of builds
COUNT = 1200  # statements of each kind
BATCH = 100


def measure(
    model: "LlavaForConditionalGeneration", processor: "LlavaProcessor", count: int = COUNT, seed: int = SEED
) -> dict[str, float]:
    """Share of statements that the model goes on with as it should, greedily and to the end, by kind.

    Captions are left out: there are many true ones. Of each trait, and of relations that hold for something and for
    nothing, there is a share of its own.
    """
    draw = Random(seed)
    hits: dict[str, list[bool]] = {}
    for name, new_scene, kinds in (("grid", draw_grid, GRID_KINDS), ("free", draw_free, FREE_KINDS)):
        for kind, (maker, _) in kinds.items():
            if kind == "caption":
                continue
            drawn = [_drawn(draw, maker, new_scene) for _ in range(count)]
            for (_, told), right in zip(drawn, _completed(model, processor, drawn, draw), strict=True):
                hits.setdefault(f"{name}: {_detail(kind, told)}", []).append(right)
    return {name: sum(found) / len(found) for name, found in hits.items()}


def _detail(kind: str, told: Statement) -> str:
    if kind == "trait":
        return told.given.partition(" ")[0]
    if "relation" in kind:
        return f"{kind}, {'nothing' if told.learned == ' none' else 'something'}"
    return kind


def _drawn(draw: Random, maker: Maker, new_scene: Callable[[Random], Scene]) -> tuple["Image", Statement]:
    while True:
        scene = new_scene(draw)
        if told := maker(draw, scene):
            return draw_picture(draw, scene), told


def _completed(
    model: "LlavaForConditionalGeneration",
    processor: "LlavaProcessor",
    drawn: list[tuple["Image", Statement]],
    draw: Random,
) -> list[bool]:
    """Whether the likeliest token is the right one at every place of what is learned."""
    import torch

    found = []
    for start in range(0, len(drawn), BATCH):
        pictures, told = zip(*drawn[start : start + BATCH], strict=True)
        batch, _ = to_batch(processor, _pixels(processor, pictures), [[fill(draw, each)] for each in told], ROOM, draw)
        with torch.inference_mode():
            best = model(**batch._asdict()).logits[:, :-1].argmax(-1)
        labels = batch.labels[:, 1:]
        found += ((best == labels) | (labels == IGNORED)).all(-1).tolist()
    return found


def _pixels(processor: "LlavaProcessor", pictures: Sequence["Image"]) -> "Tensor":
    return processor.image_processor(list(pictures), return_tensors="pt")["pixel_values"]


def main() -> None:
    """Load a folder and print the shares."""
    import torch
    from transformers import LlavaForConditionalGeneration, LlavaProcessor

    parser = argparse.ArgumentParser(description="Measure what the small vision-language model knows.")
    parser.add_argument("folder", type=Path, help="of the model")
    folder = parser.parse_args().folder
    torch.set_num_threads(1)
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).eval()
    for name, share in measure(model, LlavaProcessor.from_pretrained(folder, backend="pil")).items():
        print(f"{name:<35} {share:.0%}")


if __name__ == "__main__":
    main()
