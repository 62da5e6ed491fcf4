"""Questions about drawn scenes: training data in the form of LLaVA, a test in that of VLMEvalKit.

Every question has options, one of them right. The answer is the right option itself and not its letter: a model as
small as the embedded one learns to say what it sees, and hardly to find the letter of it.

No picture of the test is in the training data: both are drawn from one stream, and no two pictures are the same.
"""

import base64
import csv
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import NamedTuple

from PIL import Image

from ..scenes import TEXTURES, Item, Scene, count_name, item_name, with_article
from .phrases import STEPS, Kind, matching
from .statements import APART, place
from .world import CELLS, COLOURS, GROUNDS, SHAPES, cell, draw_free, draw_grid, draw_picture

TRAIN_SIZE = 1440
TEST_SIZE = 360
BENCHMARK = "scenes"
PLACES = tuple(
    " ".join(dict.fromkeys((row, column)))
    for row in ("top", "middle", "bottom")
    for column in ("left", "middle", "right")
)
FULL_SHARE = 0.6  # of the questions about cells: those that ask about one that is not empty in any case
TRIES = 50  # at a pair of neighbours, or of no neighbours
LETTERS = "ABCD"
# How VLMEvalKit closes a question with options.
CHOOSE = "Answer with the option's letter from the given choices directly."


class Question(NamedTuple):
    """A question about a picture, with one right option."""

    picture: Image.Image
    text: str
    options: tuple[str, ...]
    right: int  # index into options
    category: str
    ability: str  # MMBench's name for what the category asks of a model

    @property
    def answer(self) -> str:
        """The right option."""
        return self.options[self.right]


class Asked(NamedTuple):
    """A question without its picture; the options come in no order yet."""

    text: str
    right: str
    others: Sequence[str]  # wrong options to draw from


Maker = Callable[[Random, Scene], Asked | None]


def draw_questions(count: int, draw: Random) -> list[Question]:
    """So many questions, equally many of each category, in random order."""
    kinds = list(_KINDS.items())
    made = [_question(draw, *kinds[number % len(kinds)]) for number in range(count)]
    draw.shuffle(made)
    return made


def write_visual_questions(
    folder: str | Path, seed: int = 0, train_size: int = TRAIN_SIZE, test_size: int = TEST_SIZE
) -> None:
    """Write FOLDER/train.json, FOLDER/images/*.png and the test FOLDER/scenes.tsv.

    Args:
        folder: made if missing; files of an earlier call are overwritten.
        seed: decides every scene and question.
        train_size: training questions, each with a picture of its own.
        test_size: questions of the test, about other pictures.
    """
    folder = Path(folder)
    draw = Random(seed)
    questions = draw_questions(train_size + test_size, draw)
    write_llava(folder, questions[:train_size])
    write_tsv(folder / f"{BENCHMARK}.tsv", questions[train_size:])


def write_llava(folder: Path, questions: Iterable[Question]) -> None:
    """FOLDER/train.json as LLaVA writes it, with pictures in FOLDER/images."""
    images = folder / "images"
    images.mkdir(parents=True, exist_ok=True)
    rows = []
    for number, question in enumerate(questions):
        name = f"{number:05}.png"
        question.picture.save(images / name)
        turns = (("human", f"<image>\n{to_prompt(question)}"), ("gpt", question.answer))
        conversations = [{"from": speaker, "value": text} for speaker, text in turns]
        rows.append({"id": f"{number:05}", "image": name, "conversations": conversations})
    (folder / "train.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def write_tsv(path: Path, questions: Iterable[Question]) -> None:
    """A test as VLMEvalKit reads it: one row a question, the picture as the base64 of a PNG file."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, delimiter="\t", lineterminator="\n")
        writer.writerow(["index", "image", "question", *LETTERS, "answer", "category", "l2-category"])
        for number, question in enumerate(questions):
            options = [*question.options, *[""] * (len(LETTERS) - len(question.options))]
            row = [number, _base64(question.picture), question.text, *options, LETTERS[question.right]]
            writer.writerow([*row, question.category, question.ability])


def to_prompt(question: Question) -> str:
    """A question with its options, in the words with which VLMEvalKit asks it."""
    options = [f"{letter}. {option}" for letter, option in zip(LETTERS, question.options, strict=False)]
    return "\n".join([question.text, *options, CHOOSE])


def _base64(picture: Image.Image) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _question(draw: Random, category: str, kind: tuple[Callable[[Random], Scene], Maker, str]) -> Question:
    new_scene, maker, ability = kind
    while True:
        scene = new_scene(draw)
        if asked := maker(draw, scene):
            break
    others = [option for option in dict.fromkeys(asked.others) if option != asked.right]
    options = [asked.right, *draw.sample(others, min(len(others), len(LETTERS) - 1))]
    draw.shuffle(options)
    right = options.index(asked.right)
    return Question(draw_picture(draw, scene), asked.text, tuple(options), right, category, ability)


def _colour(draw: Random, scene: Scene) -> Asked | None:
    if item := _alone(draw, scene, "shape"):
        return Asked(f"What colour is the {item.shape}?", item.colour, COLOURS)
    return None


def _shape(draw: Random, scene: Scene) -> Asked | None:
    if item := _alone(draw, scene, "colour"):
        return Asked(f"Which shape is {item.colour}?", item.shape, SHAPES)
    return None


def _texture(draw: Random, scene: Scene) -> Asked | None:
    if item := _alone(draw, scene, "shape"):
        return Asked(f"Which texture does the {item.shape} have?", item.texture, TEXTURES)
    return None


def _place(draw: Random, scene: Scene) -> Asked | None:
    if item := _alone(draw, scene, "shape"):
        return Asked(f"Where in the picture is the {item.shape}?", place(item), PLACES)
    return None


def _ground(draw: Random, scene: Scene) -> Asked:
    return Asked("What is the background?", scene.background, GROUNDS)


def _count(draw: Random, scene: Scene) -> Asked:
    kind = _kind(draw, scene)
    count = sum(map(kind.fits, scene.items))
    return Asked(f"How many {kind.plural} are there?", count_name(count), [count_name(other) for other in range(1, 5)])


def _side(draw: Random, scene: Scene) -> Asked | None:
    """Left or right, higher or lower."""
    if len(scene.items) < 2:
        return None
    one, other = draw.sample(scene.items, 2)
    across = draw.random() < 0.5
    distance = one.x - other.x if across else one.y - other.y
    if one.shape == other.shape or abs(distance) < APART:
        return None
    if across:
        text, words = f"On which side of the {other.shape} is the {one.shape}?", ("left", "right")
    else:
        text, words = f"Is the {one.shape} higher or lower than the {other.shape}?", ("higher", "lower")
    return Asked(text, words[distance > 0], words)


def _cell(draw: Random, scene: Scene) -> Asked | None:
    names = {cell(item): item_name(item) for item in scene.items}
    others = [*names.values(), "nothing"]
    if len(set(others)) < len(LETTERS):
        return None
    row, column = draw.choice(tuple(names) if draw.random() < FULL_SHARE else CELLS)
    return Asked(f"What is in row {row + 1} of column {column + 1}?", names.get((row, column), "nothing"), others)


def _neighbour(draw: Random, scene: Scene) -> Asked | None:
    """Whether one kind of thing stands next to another; about as often yes as no."""
    wanted = draw.random() < 0.5
    for _ in range(TRIES):
        one, other = _kind(draw, scene), _kind(draw, scene)
        step = draw.choice(list(STEPS))
        if bool(matching(scene, one, (step,), other)) == wanted:
            text = f"Is there {with_article(str(one))} {step} {with_article(str(other))}?"
            return Asked(text, ("no", "yes")[wanted], ("yes", "no"))
    return None


def _kind(draw: Random, scene: Scene) -> Kind:
    """A colour or a shape that is in the scene."""
    item = draw.choice(scene.items)
    return draw.choice((Kind(item.colour, ""), Kind("", item.shape)))


def _alone(draw: Random, scene: Scene, trait: str) -> Item | None:
    """An item that no other shares its shape, or its colour, with."""
    values = [getattr(item, trait) for item in scene.items]
    return draw.choice([item for item in scene.items if values.count(getattr(item, trait)) == 1] or [None])


_SINGLE, _CROSS = "finegrained_perception (instance-level)", "finegrained_perception (cross-instance)"
_KINDS: dict[str, tuple[Callable[[Random], Scene], Maker, str]] = {
    "colour": (draw_free, _colour, _SINGLE),
    "shape": (draw_free, _shape, _SINGLE),
    "texture": (draw_free, _texture, _SINGLE),
    "place": (draw_free, _place, _SINGLE),
    "background": (draw_free, _ground, "coarse_perception"),
    "count": (draw_grid, _count, _CROSS),
    "side": (draw_free, _side, "relation_reasoning"),
    "cell": (draw_grid, _cell, _SINGLE),
    "neighbour": (draw_grid, _neighbour, "relation_reasoning"),
}
