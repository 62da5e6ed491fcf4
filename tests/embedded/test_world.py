"""The tables of the world and their shares."""

import itertools
from collections import Counter
from random import Random

import pytest

from moslora.embedded.world import TRAITS, World, first, shares, shuffled, split, world


def test_every_thing_has_a_name_of_its_own_and_a_weight_from_1_to_5():
    names = Counter(thing.name for thing in world().things)
    assert len(names) == len(world().things) == 180
    assert {thing.weight for thing in world().things} == {1, 2, 3, 4, 5}


def test_no_word_of_the_things_means_two_things():
    kinds = [{getattr(thing, kind) for thing in world().things} for kind in ("name", *TRAITS)]
    assert [one & other for one, other in itertools.combinations(kinds, 2) if one & other] == []


@pytest.mark.parametrize(("table", "cell"), [("causes", 0), ("causes", 1), ("deeds", 0), ("tasks", 0)])
def test_no_row_repeats_what_a_question_names(table, cell):
    cells = [row[cell] for row in getattr(world(), table)]
    assert len(cells) == len(set(cells)) >= 90


def test_every_task_has_four_different_steps():
    assert all(len(set(task.steps)) == len(task.steps) == 4 for task in world().tasks)


def test_every_row_is_for_practice_or_asked_about_and_never_both():
    for table, practice, asked in zip(world(), *shares(), strict=True):
        assert not set(practice) & set(asked)
        assert set(practice) | set(asked) == set(table)
        assert len(practice) == round(len(table) / 3)


def test_a_split_keeps_every_row_once():
    one, other = split(range(10), 0.3, Random(0))
    assert (len(one), sorted(one + other)) == (3, list(range(10)))


def test_a_growing_world_begins_with_few_rows_and_keeps_them():
    rows = shuffled(world(), Random(0))
    few, more = first(rows, 0.1), first(rows, 0.5)
    assert [len(table) for table in few] == [18, 10, 10, 9]
    assert all(set(small) < set(large) for small, large in zip(few, more, strict=True))
    assert first(rows, 1.0) == rows != world()
    assert isinstance(few, World)
