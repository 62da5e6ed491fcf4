"""Texts that teach what to do with facts: choose among labelled options, compare, judge. Pure Python.

They are about the rows for practice, in other words than the questions of `questions.py`.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from random import Random

from .texts import HEADINGS, Exercise, extreme, one_of, sentence, unequal
from .world import TRAITS, World, other_values, trait_values, world

SHARE_SAID = 0.85  # of the exercises say the right option before its label
SHARE_REST = 0.5  # of the exercises go on to the labels of the other options
_LABELS = (("1", "2", "3", "4", "5"), ("a", "b", "c", "d", "e"))
_MARKS = ("{label}) {option}", "({label}) {option}", "{label}: {option}")
_CLOSINGS = ("Right is", "Take", "It is", "We mean")
_VERDICTS = (("right", "wrong"), ("yes", "no"))


def lookup(draw: Random, rows: World) -> Exercise:
    """Words of the rows under labels, and all of them looked up: no facts, only the form."""
    words = list(dict.fromkeys(word for thing in draw.sample(rows.things, 5) for word in thing[:5]))
    words = draw.sample(words, draw.randint(2, 5))
    listed, labels = _listed(draw, words)
    found = [
        draw.choice(("{word} at {label}", "{label} {word}")).format(word=words[number], label=labels[number])
        for number in draw.sample(range(len(words)), len(words))
    ]
    return Exercise(f"{listed}.", f" Found: {', '.join(found)}.")


def skill(draw: Random, rows: World) -> Exercise:
    """One exercise of a kind drawn at random, about some of the rows."""
    kinds: dict[Callable[[Random, World], Exercise], int] = {
        _trait: 30,
        _owner: 14,
        _judgement: 14,
        _heavier: 12,
        _heaviest: 12,
        _effect: 8,
        _motive: 8,
        _next_step: 8,
    }
    return one_of(kinds, draw, rows)


def _listed(draw: Random, options: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The options under labels, and the labels."""
    labels, mark = draw.choice(_LABELS)[: len(options)], draw.choice(_MARKS)
    pairs = zip(labels, options, strict=True)
    return draw.choice((" ", ", ")).join(mark.format(label=label, option=option) for label, option in pairs), labels


def _choice(draw: Random, lead: str, right: str, wrong: Sequence[str]) -> Exercise:
    """Lead and labelled options; the label of the right one, or its words and its label."""
    options = draw.sample((right, *wrong), len(wrong) + 1)
    listed, labels = _listed(draw, options)
    label = labels[options.index(right)]
    said = f"{right}, so {label}" if draw.random() < SHARE_SAID else label
    others = [f"{option} {other}" for other, option in zip(labels, options, strict=True) if option != right]
    rest = f" Not {', '.join(draw.sample(others, len(others)))}." if draw.random() < SHARE_REST else ""
    given = f"{sentence(lead)}{draw.choice((':', '?'))} {listed}."
    return Exercise(given, f" {draw.choice(_CLOSINGS)} {said}.{rest}")


def _trait(draw: Random, rows: World) -> Exercise:
    """The value of one trait of a thing."""
    thing, trait = draw.choice(rows.things), draw.choice(TRAITS)
    right = getattr(thing, trait)
    wrong = other_values(draw, trait_values(world(), trait), right, draw.randint(1, 4))
    return _choice(draw, f"{trait} of the {thing.name}", right, wrong)


def _owner(draw: Random, rows: World) -> Exercise:
    """The one of several things that has a trait."""
    thing, trait = draw.choice(rows.things), draw.choice(TRAITS)
    value = getattr(thing, trait)
    others = [other.name for other in rows.things if getattr(other, trait) != value]
    return _choice(draw, HEADINGS[trait].format(value=value), thing.name, draw.sample(others, draw.randint(1, 3)))


def _judgement(draw: Random, rows: World) -> Exercise:
    """A statement that is right or wrong, and what would be right."""
    thing, trait = draw.choice(rows.things), draw.choice(TRAITS)
    right, verdicts = getattr(thing, trait), draw.choice(_VERDICTS)
    holds = draw.random() < 0.5
    value = right if holds else other_values(draw, trait_values(world(), trait), right, 1)[0]
    said = f" ({right})" if draw.random() < SHARE_SAID else ""
    given = f"{sentence(trait)} of the {thing.name} {value}:"
    return Exercise(given, f"{said} {verdicts[0 if holds else 1]}.")


def _heavier(draw: Random, rows: World) -> Exercise:
    lighter, heavier = unequal(draw, rows)
    if draw.random() < 0.5:
        return _choice(draw, "more weight has", heavier.name, [lighter.name])
    return _choice(draw, "less weight has", lighter.name, [heavier.name])


def _heaviest(draw: Random, rows: World) -> Exercise:
    heaviest, right, others = extreme(draw, rows.things, draw.randint(2, 4))
    lead = f"{'most' if heaviest else 'least'} weight has"
    return _choice(draw, lead, right.name, [thing.name for thing in others])


def _effect(draw: Random, rows: World) -> Exercise:
    row, count = draw.choice(rows.causes), draw.randint(1, 3)
    if draw.random() < 0.5:
        others = [other.effect for other in world().causes]
        return _choice(draw, f"effect of {row.cause}", row.effect, other_values(draw, others, row.effect, count))
    others = [other.cause for other in world().causes]
    return _choice(draw, f"cause of {row.effect}", row.cause, other_values(draw, others, row.cause, count))


def _motive(draw: Random, rows: World) -> Exercise:
    row = draw.choice(rows.deeds)
    others = [other.motive for other in world().deeds]
    return _choice(
        draw, f"motive to {row.deed}", row.motive, other_values(draw, others, row.motive, draw.randint(1, 3))
    )


def _next_step(draw: Random, rows: World) -> Exercise:
    task, number = draw.choice(rows.tasks), draw.randint(0, 2)
    others = list(chain.from_iterable(other.steps for other in world().tasks if other != task))
    wrong = other_values(draw, others, task.steps[number + 1], draw.randint(1, 3))
    return _choice(draw, f"to {task.name}, after {task.steps[number]}", task.steps[number + 1], wrong)
