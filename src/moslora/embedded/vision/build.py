"""Make the small vision-language model that comes with the package: tokenizer, processor, weights, all from one seed.

    python -m moslora.embedded.vision.build --out DIR

First its vision tower learns to see (`tower.py`), then its projector and language model learn to tell what is there,
from pictures of drawn scenes and true statements about them (`statements.py`). No question is among them. While the
language model learns, a head that is thrown away afterwards tells at the end of every phrase which cells of the picture
the words mean: without it, relations between things are hardly learned at all. One core of an x86 CPU needs about an
hour.
"""

import argparse
import itertools
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from ..scenes import Scene
from .optimizers import new_optimizers, schedule
from .parts import PATCHES, new_model, new_processor, new_tokenizer
from .phrases import Phrase, Statement
from .statements import statements
from .tower import learn_to_see
from .words import WORDS
from .world import CELLS, draw_picture, draw_world

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

SEED = 0
SCENES = 16_000
STEPS = 3000
BATCH_SIZE = 32  # pictures
ROOM = 96  # tokens of the statements about each picture
DISTANCE = 48  # tokens between a picture and a statement about it, at most
FAR = 0.25  # share of the steps over which the distance grows
MANY = 10  # statements that are drawn, more than there is room for
ECHO_SHARE, ECHO = 0.3, 4  # of the pictures: those with so many words to repeat first, so that any word can be said
MEANING_LAYER = 4  # of the language model, behind which the meanings of phrases are told; later layers use them
LEARNING_RATES = 0.02, 3e-3  # of Muon and of AdamW
IGNORED = -100  # label of what is not to be learned


class Row(NamedTuple):
    """The tokens of one picture and its statements.

    `parts` says where a token belongs: 0 to the picture, n to the n-th statement. A token sees the picture and its own
    statement, as if it were the only one. A statement begins up to `DISTANCE` places behind the picture, so that the
    model can look back at a picture over a long question.
    """

    ids: list[int]
    labels: list[int]
    parts: list[int]
    places: list[int]
    phrases: list[tuple[int, Phrase]]  # each behind the index of its last token


class Batch(NamedTuple):
    """`BATCH_SIZE` pictures with their statements, as the model's arguments."""

    pixel_values: "Tensor"  # (BATCH_SIZE, 3, height, width)
    input_ids: "Tensor"  # (BATCH_SIZE, longest row)
    labels: "Tensor"  # (BATCH_SIZE, longest row)
    position_ids: "Tensor"  # (BATCH_SIZE, longest row)
    attention_mask: "Tensor"  # (BATCH_SIZE, 1, longest row, longest row), True where a token is seen


class Meanings(NamedTuple):
    """What the phrases of a batch mean, and where they end."""

    pictures: "Tensor"  # (phrases,)
    tokens: "Tensor"  # (phrases,)
    cells: "Tensor"  # (phrases, 2 * len(CELLS)), 1.0 where it is: of the phrase itself, then of the statement so far


def build(out: Path, steps: int = STEPS, seed: int = SEED, scenes: int = SCENES) -> None:
    """Write the model folder.

    Args:
        out: made if missing.
        steps: of the language model and the projector, `BATCH_SIZE` pictures each.
        seed: of the scenes, the statements and the initial weights.
        scenes: that the model gets to see.
    """
    import torch

    tokenizer = new_tokenizer(seed)
    processor = new_processor(tokenizer)
    model = pretrain(processor, steps, seed, scenes)
    model.to(torch.float16).save_pretrained(out)
    processor.save_pretrained(out)


def pretrain(
    processor: "LlavaProcessor", steps: int, seed: int = SEED, scenes: int = SCENES
) -> "LlavaForConditionalGeneration":
    """A new model that has learned to see, and then, with the vision tower as it is, to say what is there; float32."""
    import torch
    from rich.progress import track

    draw = Random(seed)
    world = [draw_world(draw) for _ in range(scenes)]
    pictures = [draw_picture(draw, scene) for scene in world]
    pixels = processor.image_processor(pictures, return_tensors="pt")["pixel_values"]
    model = new_model(processor.tokenizer, seed)
    learn_to_see(model, world, pixels, seed)
    model.model.vision_tower.requires_grad_(False)
    heads = torch.nn.Linear(model.config.text_config.hidden_size, 2 * len(CELLS))
    named = [*model.named_parameters(), *((f"heads.{name}", weight) for name, weight in heads.named_parameters())]
    learning = [(name, weight) for name, weight in named if weight.requires_grad]
    optimizers, schedules = new_optimizers(learning, *LEARNING_RATES, lambda step: schedule(step, steps))
    new_batch = _batches(processor, world, pixels, draw)
    for step in track(range(steps), "tell"):
        batch, meanings = new_batch(step / steps)
        told = model(**batch._asdict(), output_hidden_states=True)
        states = told.hidden_states[MEANING_LAYER][meanings.pictures, meanings.tokens]
        wrong = torch.nn.functional.binary_cross_entropy_with_logits(heads(states), meanings.cells)
        (told.loss + len(CELLS) * wrong).backward()
        for optimizer, each in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            each.step()
    return model.requires_grad_(True).eval()


def _batches(
    processor: "LlavaProcessor", scenes: list[Scene], pixels: "Tensor", draw: Random
) -> Callable[[float], tuple[Batch, Meanings]]:
    """A function from the progress of training, 0 to 1, to a batch of pictures with new statements about them."""

    def batch(progress: float) -> tuple[Batch, Meanings]:
        rows = draw.sample(range(len(scenes)), BATCH_SIZE)
        told = [list(itertools.islice(statements(draw, scenes[row]), MANY)) for row in rows]
        for some in told:
            if draw.random() < ECHO_SHARE:
                words = f" {' '.join(draw.sample(WORDS, ECHO))}"
                some.insert(0, Statement(f"words:{words}:", words))
        return to_batch(processor, pixels[rows], told, ROOM, draw, round(DISTANCE * min(1.0, progress / FAR)))

    return batch


def to_batch(
    processor: "LlavaProcessor",
    pixels: "Tensor",
    told: list[list[Statement]],
    room: int,
    draw: Random,
    distance: int = DISTANCE,
) -> tuple[Batch, Meanings]:
    """Pictures and statements about them, as the model's arguments, and what the phrases of the statements mean.

    Args:
        processor: whose tokenizer is used.
        pixels: (pictures, 3, height, width).
        told: of each picture.
        room: tokens of the statements about one picture; those for which there is none are left out.
        draw: decides the distances.
        distance: tokens between a picture and a statement about it, at most.
    """
    from torch import tensor, tril
    from torch.nn.utils.rnn import pad_sequence

    rows = [_row(processor.tokenizer, some, room, draw, distance) for some in told]
    fillers = (processor.tokenizer.pad_token_id, IGNORED, -1, 0)
    ids, labels, parts, places = (
        pad_sequence([tensor(column) for column in columns], batch_first=True, padding_value=filler)
        for columns, filler in zip(zip(*(row[:4] for row in rows), strict=True), fillers, strict=True)
    )
    seen = (parts[:, None, :] == 0) | (parts[:, None, :] == parts[:, :, None])
    return Batch(pixels, ids, labels, places, tril(seen).unsqueeze(1)), _meanings(rows)


def _meanings(rows: list[Row]) -> Meanings:
    from torch import tensor

    found = [(number, token, phrase) for number, row in enumerate(rows) for token, phrase in row.phrases]
    cells = [
        [float(place in meant) for meant in (phrase.own, phrase.so_far) for place in CELLS] for *_, phrase in found
    ]
    return Meanings(tensor([each[0] for each in found]), tensor([each[1] for each in found]), tensor(cells))


def _row(tokenizer: "PreTrainedTokenizerFast", told: list[Statement], room: int, draw: Random, distance: int) -> Row:
    """One picture and its statements, each closed by the end-of-text token."""
    ids = [tokenizer.bos_token_id, *[tokenizer.image_token_id] * PATCHES]
    row = Row(ids, [IGNORED] * len(ids), [0] * len(ids), list(range(len(ids))), [])
    behind = len(ids)
    given, learned = (tokenizer([statement[part] for statement in told])["input_ids"] for part in (0, 1))
    for number, (statement, before, after) in enumerate(zip(told, given, learned, strict=True), 1):
        after.append(tokenizer.eos_token_id)
        length = len(before) + len(after)
        if len(row.ids) + length > behind + room:
            break
        for end, phrase in statement.phrases:
            row.phrases.append((len(row.ids) + len(tokenizer.tokenize(statement.given[:end])) - 1, phrase))
        row.ids.extend(before + after)
        row.labels.extend([IGNORED] * len(before) + after)
        row.parts.extend([number] * length)
        start = behind + draw.randint(0, distance)
        row.places.extend(range(start, start + length))
    return row


def main() -> None:
    """Read the command line and build."""
    import torch

    parser = argparse.ArgumentParser(description="Make the small vision-language model that comes with the package.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model, made if missing")
    torch.set_num_threads(1)
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
