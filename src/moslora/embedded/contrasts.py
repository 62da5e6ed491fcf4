"""Statements that set what is true beside what is not. Pure Python.

`texts.py` says that the lamp is red. Here, of red and blue, it is red; and some say it is blue, but it is red. These
are true sentences about all rows, and none of them asks: from them a model learns to find what it knows among other
things that are near.

A contrast has two parts, as an exercise has. The first cannot be foreseen, so only the second is learned.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from random import Random

from .texts import Exercise, extreme, one_of, sentence, unequal
from .world import TRAITS, World, other_values, trait_values, world

_TRAITS = {
    "colour": ("the {name} is", "the colour of the {name} is", "painted, the {name} is"),
    "material": ("the {name} is made of", "the material of the {name} is", "the {name} consists of"),
    "place": ("the {name} is kept in the", "the place of the {name} is the", "the {name} belongs into the"),
    "use": ("the {name} is used for", "the use of the {name} is", "the {name} is good for"),
}
_OWNERS = {
    "colour": ("{value} is", "painted {value} is", "the colour {value} has"),
    "material": ("made of {value} is", "{value} is the material of", "of {value} consists"),
    "place": ("kept in the {value} is", "in the {value} belongs", "the {value} is the place of"),
    "use": ("used for {value} is", "for {value} people take", "{value} is the use of"),
}
_MOTIVES = ("people {deed} out of", "those who {deed} act from", "to {deed} is a sign of")
_EFFECTS = ("{cause} brings", "{cause} leads to", "the effect of {cause} is")
_CAUSES = ("{effect} comes from", "the cause of {effect} is", "{effect} is the work of")
_STEPS = (
    "to {task}, after {step}, comes",
    "the task is to {task}: {step}, next",
    "a plan to {task}: {step}, and after that",
)
_WEIGHTS = {True: ("the heaviest is", "most weight has"), False: ("the lightest is", "least weight has")}
_PAIRS = {True: ("heavier is", "more weight has"), False: ("lighter is", "less weight has")}
# How some things are named before one of them is chosen; the last two name them inside of the sentence.
_LISTS = ("of {these}, {lead}", "out of {these}: {lead}", "there are {these}. {lead}", "take {these}; {lead}")
_INSIDE = ("{lead}, of {these},", "{lead} (not all of {these}):")
_SAYINGS = ("some say that {claim}", "people say {claim}", "{claim}, they say", "one reads that {claim}")
# Half of the verdicts come after what is so, since they are sooner learned there, and half before.
_AGREEING = (". It is {right}: they are right.", ". In truth {right}: agreed.", ", and so it is.", ". That holds.")
_DENYING = (". It is {right}: they are wrong.", ". In truth {right}: denied.", ", but it is {right}.", ". That fails.")


def contrast(draw: Random, rows: World) -> Exercise:
    """One contrast of a kind drawn at random, about some of the rows."""
    kinds: dict[Callable[[Random, World], Exercise], int] = {
        _trait: 20,
        _owner: 40,
        _saying: 10,
        _heavier: 10,
        _heaviest: 14,
        _motive: 6,
        _consequence: 6,
        _step: 16,
    }
    return one_of(kinds, draw, rows)


def _chosen(draw: Random, lead: str, right: str, wrong: Sequence[str], article: str = "") -> Exercise:
    """The right one of several things that are named before or inside of the sentence."""
    some = [article + option for option in draw.sample((right, *wrong), len(wrong) + 1)]
    these = f"{', '.join(some[:-1])}{draw.choice((' and ', ' or ', ', '))}{some[-1]}"
    form = draw.choice(_LISTS + _INSIDE)
    return Exercise(sentence(form.format(these=these, lead=lead)), f" {article}{right}.")


def _trait(draw: Random, rows: World) -> Exercise:
    thing, trait = draw.choice(rows.things), draw.choice(TRAITS)
    right = getattr(thing, trait)
    wrong = other_values(draw, trait_values(world(), trait), right, draw.randint(1, 3))
    return _chosen(draw, draw.choice(_TRAITS[trait]).format(name=thing.name), right, wrong)


def _owner(draw: Random, rows: World) -> Exercise:
    thing, trait = draw.choice(rows.things), draw.choice(TRAITS)
    value = getattr(thing, trait)
    others = [other.name for other in rows.things if getattr(other, trait) != value]
    lead = draw.choice(_OWNERS[trait]).format(value=value)
    return _chosen(draw, lead, thing.name, draw.sample(others, draw.choice((1, 1, 2, 3))), "the ")


def _saying(draw: Random, rows: World) -> Exercise:
    """What is said of a thing, and whether it is so."""
    thing, trait = draw.choice(rows.things), draw.choice(TRAITS)
    right = getattr(thing, trait)
    said = right if draw.random() < 0.5 else other_values(draw, trait_values(world(), trait), right, 1)[0]
    claim = f"{draw.choice(_TRAITS[trait]).format(name=thing.name)} {said}"
    verdict = draw.choice(_AGREEING if said == right else _DENYING).format(right=right)
    return Exercise(sentence(draw.choice(_SAYINGS).format(claim=claim)), verdict)


def _heavier(draw: Random, rows: World) -> Exercise:
    lighter, heavier = unequal(draw, rows)
    heaviest = draw.random() < 0.5
    right, other = (heavier, lighter) if heaviest else (lighter, heavier)
    return _chosen(draw, draw.choice(_PAIRS[heaviest]), right.name, [other.name], "the ")


def _heaviest(draw: Random, rows: World) -> Exercise:
    heaviest, right, others = extreme(draw, rows.things, draw.randint(3, 4))
    return _chosen(draw, draw.choice(_WEIGHTS[heaviest]), right.name, [thing.name for thing in others], "the ")


def _motive(draw: Random, rows: World) -> Exercise:
    row = draw.choice(rows.deeds)
    wrong = other_values(draw, [other.motive for other in world().deeds], row.motive, draw.randint(1, 3))
    return _chosen(draw, draw.choice(_MOTIVES).format(deed=row.deed), row.motive, wrong)


def _consequence(draw: Random, rows: World) -> Exercise:
    row, count = draw.choice(rows.causes), draw.randint(1, 3)
    if draw.random() < 0.5:
        wrong = other_values(draw, [other.effect for other in world().causes], row.effect, count)
        return _chosen(draw, draw.choice(_EFFECTS).format(cause=row.cause), row.effect, wrong)
    wrong = other_values(draw, [other.cause for other in world().causes], row.cause, count)
    return _chosen(draw, draw.choice(_CAUSES).format(effect=row.effect), row.cause, wrong)


def _step(draw: Random, rows: World) -> Exercise:
    """The next step of a task, beside other steps of the same task and of others."""
    task, number = draw.choice(rows.tasks), draw.randint(0, 2)
    right = task.steps[number + 1]
    same = [step for place, step in enumerate(task.steps) if place not in (number, number + 1)]
    elsewhere = list(chain.from_iterable(other.steps for other in world().tasks if other != task))
    wrong = {*draw.sample(same, draw.randint(0, 2)), *other_values(draw, elsewhere, right, draw.randint(1, 2))}
    lead = draw.choice(_STEPS).format(task=task.name, step=task.steps[number])
    return _chosen(draw, lead, right, sorted(wrong))
