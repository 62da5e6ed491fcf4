"""The build script: a seed decides the model, statements are learned as if each were alone, and Muon is Muon."""

import itertools
from random import Random

import pytest
import torch
from safetensors.torch import load_file

from moslora.embedded.scenes import Item, Scene, cell_centre
from moslora.embedded.vision import build, parts, tower
from moslora.embedded.vision.parts import PATCHES, new_model, new_processor, new_tokenizer
from moslora.embedded.vision.phrases import Statement
from moslora.embedded.vision.statements import statements
from moslora.embedded.vision.world import COLOURS, GROUNDS, SHAPES, draw_grid, draw_picture


def test_a_short_build_repeated_gives_the_same_weights(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "TOKENIZER_SCENES", 20)
    monkeypatch.setattr(tower, "STEPS", 2)
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        build.build(tmp_path / name, steps=1, seed=seed, scenes=70)
    one, again, other = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "again", "other"))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope="module")
def processor():
    return new_processor(new_tokenizer(0))


def _pictured(processor, seed: int, count: int) -> tuple[torch.Tensor, list[Statement]]:
    """The picture of a scene, (1, 3, height, width), and statements about it."""
    draw = Random(seed)
    scene = draw_grid(draw)
    pixels = processor.image_processor([draw_picture(draw, scene)], return_tensors="pt")["pixel_values"]
    return pixels, list(itertools.islice(statements(draw, scene), count))


def test_each_statement_is_learned_as_if_it_were_alone_behind_its_picture(processor):
    model, first = new_model(processor.tokenizer, 0).eval(), PATCHES + 1
    pixels, told = _pictured(processor, 3, 4)
    together, _ = build.to_batch(processor, pixels, [told], 100, Random(0))
    with torch.inference_mode():
        logits = model(**together._asdict()).logits[0]
        for statement in told:
            ids = [token for part in statement[:2] for token in processor.tokenizer(part)["input_ids"]]
            start = _place(together.input_ids[0].tolist(), ids)
            places = [together.position_ids[:, :first], together.position_ids[:, start : start + len(ids)]]
            alone = model(
                input_ids=torch.cat([together.input_ids[:, :first], torch.tensor([ids])], 1),
                position_ids=torch.cat(places, 1),
                pixel_values=pixels,
            ).logits[0]
            torch.testing.assert_close(logits[start : start + len(ids)], alone[first:], atol=1e-4, rtol=1e-4)


def _place(row: list[int], part: list[int]) -> int:
    return next(start for start in range(len(row)) if row[start : start + len(part)] == part)


def test_only_what_the_picture_tells_is_learned(processor):
    pixels, told = _pictured(processor, 4, 3)
    batch, _ = build.to_batch(processor, pixels, [told], 100, Random(0))
    learned = batch.labels[0][batch.labels[0] != build.IGNORED]
    assert processor.tokenizer.decode(learned) == "".join(f"{statement.learned}</s>" for statement in told)


def test_statements_for_which_there_is_no_room_are_left_out_whole(processor):
    pixels, told = _pictured(processor, 4, 8)
    batch, _ = build.to_batch(processor, pixels, [told], 40, Random(0))
    assert batch.input_ids.shape[1] <= PATCHES + 1 + 40
    assert batch.input_ids[0, -1] == processor.tokenizer.eos_token_id


def test_a_patch_is_told_by_the_item_that_covers_it_and_by_its_neighbours():
    items = [("red", "circle", 0, 0), ("blue", "square", 1, 0), ("green", "star", 1, 2)]
    placed = []
    for colour, shape, row, column in items:
        x, y = cell_centre(row, column, 3)
        placed.append(Item(colour=colour, shape=shape, x=x, y=y, size=0.2))
    labels = tower.patch_labels(Scene(items=tuple(placed), background="grass", grid=3))
    assert [row[0] for row in labels] == list(range(9))
    assert {row[1] for row in labels} == {GROUNDS.index("grass")}
    assert [row[2] for row in labels] == [
        COLOURS.index("red"),
        6,
        6,
        COLOURS.index("blue"),
        6,
        COLOURS.index("green"),
        6,
        6,
        6,
    ]
    assert [row[3] for row in labels] == [
        SHAPES.index("circle"),
        6,
        6,
        SHAPES.index("square"),
        6,
        SHAPES.index("star"),
        6,
        6,
        6,
    ]
    below, two_right = (6 + 2 * tower.AROUND.index(step) for step in ((1, 0), (0, 2)))
    assert labels[0][below : below + 2] == [COLOURS.index("blue"), SHAPES.index("square")]
    assert labels[3][two_right : two_right + 2] == [COLOURS.index("green"), SHAPES.index("star")]
    assert labels[0][two_right : two_right + 2] == [6, 6]


def test_a_free_item_belongs_to_the_patch_of_its_middle():
    item = Item(colour="yellow", shape="heart", x=0.3, y=0.17, size=0.34)
    labels = tower.patch_labels(Scene(items=(item,), background="sand"))
    heart, nothing = SHAPES.index("heart"), len(SHAPES)
    assert [row[3] for row in labels] == [heart, *[nothing] * 8]
    assert all(row[6:] == [tower.NOT_ASKED] * (2 * len(tower.AROUND)) for row in labels)


def test_meanings_stand_at_the_last_token_of_their_phrases(processor):
    pixels, told = _pictured(processor, 3, 6)
    batch, meanings = build.to_batch(processor, pixels, [told], 200, Random(0))
    phrases = [phrase for statement in told for _, phrase in statement.phrases]
    assert len(phrases) == len(meanings.tokens) > 4
    assert meanings.pictures.tolist() == [0] * len(phrases)
    for phrase, token, cells in zip(phrases, meanings.tokens, meanings.cells, strict=True):
        assert processor.tokenizer.decode(batch.input_ids[0, : token + 1]).endswith(phrase.words)
        every = [(row, column) for row in range(3) for column in range(3)]
        both = [{cell for cell, here in zip(every, part, strict=True) if here} for part in cells.view(2, 9).tolist()]
        assert both == [phrase.own, phrase.so_far]
