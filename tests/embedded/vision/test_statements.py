"""Statements about scenes: all true, with phrases that mean what they say, by an independent look at the scene."""

import itertools
import re
from random import Random

import pytest

from moslora.embedded.scenes import COLOURS, SHAPES, Item, Scene, cell_centre, count_name, size_name
from moslora.embedded.vision import phrases
from moslora.embedded.vision.phrases import STEPS, Kind, Statement, fill, matching
from moslora.embedded.vision.statements import place, statements
from moslora.embedded.vision.words import FILLERS
from moslora.embedded.vision.world import GRID, draw_free, draw_grid

NUMBERS = {"none": 0} | {count_name(number): number for number in range(1, 10)}
COLOUR = "|".join(COLOURS)
NAME = rf"(?:an? )?(?:(?:{COLOUR}) )?(?:shape|{'|'.join(SHAPES)})"  # "a red shape", "star"
STEP = "above|below|left of|right of"


@pytest.fixture
def bare(monkeypatch):
    """Statements without other words around them."""
    monkeypatch.setattr(phrases, "FILLED", 0.0)


def _cells(scene: Scene) -> dict[tuple[int, int], Item]:
    """(row, column), from 0 -> item."""
    return {(round(item.y * GRID - 0.5), round(item.x * GRID - 0.5)): item for item in scene.items}


def _is(item: Item, words: str) -> bool:
    named = set(words.removeprefix("an ").removeprefix("a ").split()) - {"shape"}
    return named <= {item.colour, item.shape}


def _standing(scene: Scene, words: str) -> set[tuple[int, int]]:
    """Cells of the items that a phrase such as "a star left of above a red shape" means."""
    cells = _cells(scene)
    relation = re.fullmatch(rf"({NAME})(?: is| that is)? ((?:{STEP}) .*)", words)
    if not relation:
        return {cell for cell, item in cells.items() if _is(item, words)}
    return {cell for cell, item in cells.items() if _is(item, relation[1])} & _led_to(scene, relation[2])


def _led_to(scene: Scene, words: str) -> set[tuple[int, int]]:
    step, rest = re.match(rf"({STEP}) (.*)", words).groups()
    start = _led_to(scene, rest) if re.match("above|below|left|right", rest) else _standing(scene, rest)
    down, right = {"above": (-1, 0), "below": (1, 0), "left of": (0, -1), "right of": (0, 1)}[step]
    moved = {(row + down, column + right) for row, column in start}
    return {cell for cell in moved if min(cell) >= 0 and max(cell) < GRID}


def _true_of_grid(scene: Scene, told: Statement) -> bool:
    given, learned = told.given.removesuffix(":"), told.learned.strip()
    cells = _cells(scene)
    names = {cell: f"{item.colour} {item.shape}" for cell, item in cells.items()}
    if "row" in given and "column" in given:
        numbers = {word: int(number) - 1 for word, number in re.findall(r"(row|column) (\d)", given)}
        return names.get((numbers["row"], numbers["column"]), "nothing") == learned
    if line := re.fullmatch(r"(row|column) (\d)", given):
        number = int(line[2]) - 1
        line_cells = [(number, other) if line[1] == "row" else (other, number) for other in range(GRID)]
        return ", ".join(names.get(cell, "nothing") for cell in line_cells) == learned
    if given in ("ground", "background"):
        return scene.background == learned
    if beside := re.fullmatch(rf"({STEP}) the (.*)", given):
        ((row, column),) = [cell for cell, item in cells.items() if _is(item, beside[2])]
        down, right = {"above": (-1, 0), "below": (1, 0), "left of": (0, -1), "right of": (0, 1)}[beside[1]]
        cell = row + down, column + right
        return names.get(cell, "nothing" if set(cell) <= {0, 1, 2} else "the edge") == learned
    if both := re.fullmatch(rf"({NAME})(?:,| is| that is)? ({NAME}|{COLOUR})", given):
        found = [item for item in scene.items if _is(item, both[1]) and _is(item, both[2])]
        return len(found) == NUMBERS[learned]
    if re.search(STEP, given):
        return len(_standing(scene, given)) == NUMBERS[learned]
    if given == "picture":
        return all(trait in learned for item in scene.items for trait in (item.colour, item.shape))
    if learned not in NUMBERS:  # the colour of the only item of a shape, or the shape of the only one of a colour
        unit = re.fullmatch(r"(?:(?:colour|shape) of the )?(\w+)(?: shape)?", given)[1]
        (item,) = [item for item in scene.items if unit in (item.colour, item.shape)]
        return learned == (item.shape if unit == item.colour else item.colour)
    singular = re.sub(r"(cross)es$|s$", r"\1", given)
    return sum(_is(item, singular) for item in scene.items) == NUMBERS[learned]


def _true_of_free(scene: Scene, told: Statement) -> bool:
    given, learned = told.given.removesuffix(":"), told.learned.strip()
    if given in ("ground", "background"):
        return scene.background == learned
    if trait := re.fullmatch(r"(colour|texture|size|place) of the (.*)", given):
        (item,) = [item for item in scene.items if _is(item, trait[2])]
        values = {"colour": item.colour, "texture": item.texture, "size": size_name(item.size), "place": place(item)}
        return values[trait[1]] == learned
    if beside := re.fullmatch(r"from the (\w+), the (\w+) is(?: on the)?", given):
        pairs = itertools.permutations(scene.items, 2)
        others = [(one, other) for one, other in pairs if (other.shape, one.shape) == beside.groups()]
        truth = {
            "left": lambda one, other: one.x < other.x,
            "right": lambda one, other: one.x > other.x,
            "higher": lambda one, other: one.y < other.y,
            "lower": lambda one, other: one.y > other.y,
        }[learned]
        return any(truth(one, other) for one, other in others)
    return _true_of_grid(scene, told)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(("new_scene", "is_true"), [(draw_grid, _true_of_grid), (draw_free, _true_of_free)])
def test_every_statement_is_true(new_scene, is_true):
    draw = Random(5)
    for _ in range(150):
        scene = new_scene(draw)
        for told in itertools.islice(statements(draw, scene), 12):
            assert is_true(scene, told), (scene, told)


@pytest.mark.usefixtures("bare")
def test_a_false_statement_is_noticed_by_these_tests():
    """The look at the scene is no rubber stamp: most statements with the result of another are false."""
    draw, wrong = Random(6), []
    for _ in range(100):
        scene = draw_grid(draw)
        one, other = itertools.islice(statements(draw, scene), 2)
        if one.learned != other.learned and one.learned.strip() in NUMBERS and other.learned.strip() in NUMBERS:
            wrong.append(_true_of_grid(scene, Statement(one.given, other.learned)))
    assert len(wrong) > 10
    assert not any(wrong)


@pytest.mark.usefixtures("bare")
def test_phrases_mean_the_cells_where_their_things_stand():
    draw, seen = Random(9), set()
    for _ in range(150):
        scene = draw_grid(draw)
        for told in itertools.islice(statements(draw, scene), 12):
            given, learned = told.given.removesuffix(":"), told.learned.strip()
            for end, phrase in told.phrases:
                assert given[:end].endswith(phrase.words)
                if re.fullmatch(rf"{NAME}|{COLOUR}", phrase.words):
                    assert phrase.own == _standing(scene, phrase.words)
            if learned in NUMBERS:
                assert len(told.phrases[-1][1].so_far) == NUMBERS[learned]
            if re.search(rf"{NAME}.* (?:{STEP}) ", given):
                assert told.phrases[-1][1].so_far == _standing(scene, given)
                assert told.phrases[0][1].so_far == told.phrases[0][1].own
            elif re.match(rf"(?:{STEP}) the", given):
                assert told.phrases[-1][1].so_far == _led_to(scene, given.replace(" the ", " "))
            seen.add(len(told.phrases))
    assert seen == {0, 1, 2}


def test_words_around_a_statement_change_neither_what_is_learned_nor_what_it_means():
    draw, lengths = Random(10), []
    told = Statement(
        "a star above a heart:", " one", tuple((end, phrases.Phrase("", frozenset(), frozenset())) for end in (6, 20))
    )
    for _ in range(200):
        filled = fill(draw, told)
        assert filled.learned == " one"
        assert [filled.given[:end][-6:] for end, _ in filled.phrases] == ["a star", " heart"]
        before, behind = filled.given.removesuffix(":").split("a star above a heart")
        assert set(f"{before} {behind}".split()) <= set(FILLERS)
        lengths.append(len(f"{before} {behind}".split()))
    assert 0.3 < lengths.count(0) / len(lengths) < 0.5
    assert max(lengths) > 12


def test_relations_hold_between_neighbours_alone():
    kinds = (("red", "circle", 0, 0), ("blue", "square", 1, 0), ("green", "star", 1, 2))
    items = []
    for colour, shape, row, column in kinds:
        x, y = cell_centre(row, column, GRID)
        items.append(Item(colour=colour, shape=shape, x=x, y=y))
    scene = Scene(items=tuple(items), grid=GRID)
    circle, square, star = (Kind("", shape) for _, shape, *_ in kinds)
    assert matching(scene, circle, ("above",), square) == {(0, 0)}
    assert matching(scene, square, ("above",), circle) == set()
    assert matching(scene, square, ("left of",), star) == set(), "two columns apart"
    assert matching(scene, square, ("left of", "left of"), star) == {(1, 0)}, "over an empty cell"
    assert matching(scene, star, ("right of", "above"), square) == set()
    assert matching(scene, circle, ("below", "above"), circle) == set(), "there is no way out of the grid and back"
    assert matching(scene, circle, ("above", "below"), circle) == {(0, 0)}


def test_no_statement_is_a_question():
    draw = Random(7)
    for new_scene in (draw_grid, draw_free):
        for _ in range(50):
            for told in itertools.islice(statements(draw, new_scene(draw)), 10):
                text = (told.given + told.learned).lower()
                assert "?" not in text
                assert not re.match(r"(is|are|what|which|where|how|on which|do|does|can)\b", text)
                assert not re.search(r"\b(true|false|yes)\b", text)


def test_about_half_of_the_relations_hold_for_no_item():
    draw, found = Random(8), []
    for _ in range(150):
        told = itertools.islice(statements(draw, draw_grid(draw)), 20)
        found += [each.learned == " none" for each in told if any(f" {step} " in each.given for step in STEPS)]
    assert 0.35 < sum(found) / len(found) < 0.6


def test_kinds_are_named_in_one_and_in_many():
    assert str(Kind("red", "")) == "red shape"
    assert Kind("", "cross").plural == "crosses"
    assert set(SHAPES) & set(COLOURS) == set()
