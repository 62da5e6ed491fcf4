"""The table of things and the texts drawn from it."""

import itertools
import re
from collections import Counter

from moslora.embedded.world import TRAITS, documents, things


def _first(seed: int, count: int) -> list[str]:
    return list(itertools.islice(documents(seed), count))


def test_every_thing_has_a_name_of_its_own_and_a_weight_from_1_to_5():
    names = Counter(thing.name for thing in things())
    assert len(names) == len(things()) == 180
    assert {thing.weight for thing in things()} == {1, 2, 3, 4, 5}


def test_no_word_of_the_table_means_two_things():
    kinds = [{getattr(thing, kind) for thing in things()} for kind in ("name", *TRAITS)]
    assert [one & other for one, other in itertools.combinations(kinds, 2) if one & other] == []


def test_the_seed_decides_every_text():
    assert _first(3, 200) == _first(3, 200)
    assert _first(3, 200) != _first(4, 200)


def test_texts_mention_every_thing_and_hold_no_blank_that_was_not_filled():
    text = "\n".join(_first(0, 5000))
    assert not re.search(r"[{}]", text)
    assert {thing.name for thing in things()} <= set(re.findall(r"[a-z]+", text))


def test_texts_tell_the_truth_about_colours_and_weights():
    known = {thing.name: thing for thing in things()}
    text = "\n".join(_first(1, 5000))
    colours = re.findall(r"[Tt]he colour of the (\w+) is (\w+)\.", text)
    assert len(colours) > 200
    assert {(name, known[name].colour) for name, _ in colours} == set(colours)
    pairs = re.findall(r"The (\w+) is (heavier|lighter) than the (\w+)\.", text)
    assert len(pairs) > 300
    assert all((known[one].weight > known[two].weight) == (word == "heavier") for one, word, two in pairs)


def test_a_thing_is_sorted_into_the_box_that_has_its_trait():
    known = {thing.name: thing for thing in things()}
    checked = 0
    for text in _first(2, 3000):
        entries = dict(re.findall(r"(\w+\d): (\w+)", text.lower()))
        for name, label in re.findall(r"Put the (\w+) in (\w+\d)\.", text):
            checked += 1
            assert entries[label] in {getattr(known[name], trait) for trait in TRAITS}
    assert checked > 300


def test_texts_hold_no_multiple_choice_question():
    assert not any("Please choose the correct answer to the question:" in text for text in _first(0, 20_000))
