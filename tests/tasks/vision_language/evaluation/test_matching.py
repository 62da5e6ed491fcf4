"""Which option a text means; every rule with a case that only looks like it."""

import pytest

from moslora.tasks.vision_language.evaluation.matching import match_option, match_yes_no

ANIMALS = {"A": "a dog", "B": "a cat", "C": "a large cat", "D": "no animal"}


@pytest.mark.parametrize(
    ("text", "letter"),
    [
        # a letter alone
        ("B", "B"), (" (b). ", "B"), ("**C**", "C"), ("Answer: D", "D"), ("选项B", "B"), ("\uff22", "B"),
        ("E", None), ("AB", None),
        # an option's text
        ("A cat.", "B"), ("the dog", "A"), ("NO ANIMAL", "D"), ("horse", None),
        # a letter in front
        ("B. a cat", "B"), ("C) It is large", "C"), ("(A) a dog", "A"), ("B. a dog", None),
        ("A. a dog B. a cat C. a large cat", None), ("A dog runs and barks", "A"), ("A, B and C", None),
        ("Although small", None),
        # the text says so
        ("The answer is B because it meows", "B"), ("I choose option C.", "C"), ("答案是D。", "D"), ("It is (B).", "B"),
        ("The answer is A horse", None), ("Either option A or option B", None), ("Option A is wrong", None),
        ("The answer is Because", None),
        # an option inside
        ("I see a cat on a mat", "B"), ("There is a large cat", "C"), ("It is not a cat", None),
        ("a cat and a dog", None), ("The category is unknown", None), ("", None),
    ],
)  # fmt: skip
def test_a_text_means_one_option_or_none(text, letter):
    assert match_option(text, ANIMALS) == letter


@pytest.mark.parametrize(
    ("text", "options", "letter"),
    [
        ("Vitamin C", {"A": "Vitamin C", "B": "Vitamin A", "C": "Iron"}, "A"),
        ("C", {"A": "C", "B": "D", "C": "E"}, "C"),  # asked for the letter of an option
        ("5", {"A": "5", "B": "15"}, "A"),
        ("It is 15 years old", {"A": "5", "B": "15"}, "B"),
        ("-5", {"A": "5", "B": "-5"}, "B"),
        ("图中有一只猫", {"A": "狗", "B": "猫"}, "B"),
        ("图中没有猫", {"A": "狗", "B": "猫"}, None),
        ("B", {"A": "left", "B": "right"}, "B"),
        ("top left", {"A": "left", "B": "top left"}, "B"),
        ("same", {"A": "same", "B": "Same"}, None),
        ("I", {"H": "x", "I": "y"}, "I"),
    ],
)
def test_options_that_resemble_letters_or_each_other(text, options, letter):
    assert match_option(text, options) == letter


def test_where_nothing_is_offered_nothing_is_meant():
    assert match_option("A", {}) is None


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Yes", "Yes"), ("no.", "No"), ("Yes, there is a dog.", "Yes"), ("There is no dog.", "No"), ("Nobody", None),
        ("Yes and no", None), ("Eyes", None), ("", None), ("The dog is there.", None),
    ],
)  # fmt: skip
def test_yes_and_no_are_whole_words(text, word):
    assert match_yes_no(text) == word
