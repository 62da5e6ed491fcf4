"""The vision tower learns to see before the language model learns to speak, as CLIP does before LLaVA.

For each of its patches it tells which item has its middle there, and, in a grid, what stands up to two steps away.
"""

from collections.abc import Iterator, Sequence
from random import Random
from typing import TYPE_CHECKING

from ..scenes import SIZES, TEXTURES, Item, Scene, size_name
from .optimizers import new_optimizers, schedule
from .world import CELLS, COLOURS, GROUNDS, SHAPES, cell

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlavaForConditionalGeneration

STEPS = 2000
BATCH_SIZE = 64  # pictures
LEARNING_RATES = 0.02, 2e-3  # of Muon and of AdamW
# Trait of an item -> its values; a patch without an item has the value behind the last.
TRAITS = {"colour": COLOURS, "shape": SHAPES, "texture": TEXTURES, "size": tuple(SIZES)}
AROUND = tuple(
    (down, right) for down in range(-2, 3) for right in range(-2, 3) if 0 < abs(down) + abs(right) <= 2
)  # rows and columns to the places that are at most two steps away
NOT_ASKED = -100


def learn_to_see(model: "LlavaForConditionalGeneration", scenes: Sequence[Scene], pixels: "Tensor", seed: int) -> None:
    """Train the vision tower; the heads that tell what it sees are thrown away.

    Args:
        model: whose tower is trained.
        scenes: all that there are to see.
        pixels: (scenes, 3, height, width), their pictures.
        seed: of the order of the pictures and of the heads.
    """
    import torch
    from rich.progress import track

    tower = model.model.vision_tower
    labels = torch.tensor([patch_labels(scene) for scene in scenes])  # (scenes, patches, heads)
    sizes = _head_sizes()
    torch.manual_seed(seed)
    heads = torch.nn.Linear(model.config.vision_config.hidden_size, sum(sizes))
    named = [*tower.named_parameters(), *((f"heads.{name}", weight) for name, weight in heads.named_parameters())]
    optimizers, schedules = new_optimizers(named, *LEARNING_RATES, lambda step: schedule(step, STEPS))
    for rows in track(_orders(len(scenes), seed), "see", total=STEPS):
        seen = tower(pixels[rows], output_hidden_states=True).hidden_states[-1][:, 1:]  # without the class token
        losses = [
            torch.nn.functional.cross_entropy(part.flatten(0, 1), labels[rows, :, head].flatten())
            for head, part in enumerate(heads(seen).split(sizes, -1))
        ]
        torch.stack(losses).sum().backward()
        for optimizer, each in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            each.step()


def patch_labels(scene: Scene) -> list[list[int]]:
    """For each patch, row by row: its place, the ground, the traits of its item, and what stands around it.

    Around it, only colour and shape are told, and only in a grid; `NOT_ASKED` elsewhere.
    """
    items = {cell(item): item for item in scene.items}
    rows = []
    for number, (row, column) in enumerate(CELLS):
        own = [_value(items.get((row, column)), trait) for trait in TRAITS]
        around = [
            _value(items.get((row + down, column + right)), trait) if scene.grid else NOT_ASKED
            for down, right in AROUND
            for trait in ("colour", "shape")
        ]
        rows.append([number, GROUNDS.index(scene.background), *own, *around])
    return rows


def _head_sizes() -> list[int]:
    around = [len(TRAITS[trait]) + 1 for _ in AROUND for trait in ("colour", "shape")]
    return [len(CELLS), len(GROUNDS), *(len(values) + 1 for values in TRAITS.values()), *around]


def _value(item: Item | None, trait: str) -> int:
    values = TRAITS[trait]
    if item is None:
        return len(values)
    return values.index(size_name(item.size) if trait == "size" else getattr(item, trait))


def _orders(count: int, seed: int) -> Iterator[list[int]]:
    """Numbers of `STEPS` batches."""
    draw, waiting = Random(seed), list[int]()
    for _ in range(STEPS):
        if len(waiting) < BATCH_SIZE:
            waiting += draw.sample(range(count), count)
        yield [waiting.pop() for _ in range(BATCH_SIZE)]
