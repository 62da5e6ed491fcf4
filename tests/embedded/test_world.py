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


def test_the_heaviest_and_the_lightest_are_so():
    known = {thing.name: thing.weight for thing in things()}
    ranked = re.findall(r"Of ([\w, ]+) the (heaviest|lightest) is (\w+)\.", "\n".join(_first(2, 5000)))
    assert len(ranked) > 200
    for names, word, name in ranked:
        others = [known[other] for other in names.split(", ") if other != name]
        assert known[name] > max(others) if word == "heaviest" else known[name] < min(others)


def test_a_growing_world_begins_with_few_things_and_ends_with_all():
    texts = list(itertools.islice(documents(0, growth=4000), 8000))
    mentioned = [
        {thing.name for thing in things()} & set(re.findall(r"[a-z]+", " ".join(part)))
        for part in (texts[:800], texts[4000:])
    ]
    assert len(mentioned[0]) < 25
    assert len(mentioned[1]) == len(things())


def test_texts_hold_no_multiple_choice_question():
    assert not any("Please choose the correct answer to the question:" in text for text in _first(0, 20_000))
