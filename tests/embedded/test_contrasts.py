"""Every contrast chooses what the tables say is right, and nothing else that it names would be."""

import re
from random import Random

import pytest

from moslora.embedded import contrasts
from moslora.embedded.world import TRAITS, world

THINGS = {thing.name: thing for thing in world().things}
NAMED = {
    kind: re.compile(rf"\b({'|'.join(sorted(map(re.escape, values), key=len, reverse=True))})\b")
    for kind, values in {
        "things": THINGS,
        **{trait: {getattr(thing, trait) for thing in world().things} for trait in TRAITS},
        "motives": {row.motive for row in world().deeds},
        "causes": {row.cause for row in world().causes},
        "effects": {row.effect for row in world().causes},
        "steps": {step for task in world().tasks for step in task.steps},
    }.items()
}


def _truths() -> dict[str, tuple[str, set[str]]]:
    """What a contrast is about -> the kind of its options, and those that are right by the tables."""
    found: dict[str, tuple[str, set[str]]] = {}
    for name, thing in THINGS.items():
        for trait in TRAITS:
            value = getattr(thing, trait)
            for form in contrasts._TRAITS[trait]:
                found[form.format(name=name)] = (trait, {value})
            for form in contrasts._OWNERS[trait]:
                owners = {other.name for other in THINGS.values() if getattr(other, trait) == value}
                found[form.format(value=value)] = ("things", owners)
    for row in world().deeds:
        found |= {form.format(deed=row.deed): ("motives", {row.motive}) for form in contrasts._MOTIVES}
    for row in world().causes:
        found |= {form.format(cause=row.cause): ("effects", {row.effect}) for form in contrasts._EFFECTS}
        found |= {form.format(effect=row.effect): ("causes", {row.cause}) for form in contrasts._CAUSES}
    for task in world().tasks:
        for step, after in zip(task.steps, task.steps[1:], strict=False):
            found |= {form.format(task=task.name, step=step): ("steps", {after}) for form in contrasts._STEPS}
    return found


TRUTHS = _truths()
WEIGHTS = {lead: most for forms in (contrasts._WEIGHTS, contrasts._PAIRS) for most in forms for lead in forms[most]}


def _right_and_named(given: str) -> tuple[set[str], set[str]]:
    """The options that are right by the tables, and all that are named."""
    text = given[0].lower() + given[1:]
    leads = [lead for lead in TRUTHS if lead in text]
    if not leads:
        most = next(most for lead, most in WEIGHTS.items() if lead in text)
        named = set(NAMED["things"].findall(text))
        best = (max if most else min)(THINGS[name].weight for name in named)
        return {name for name in named if THINGS[name].weight == best}, named
    lead = max(leads, key=len)
    kind, right = TRUTHS[lead]
    named = set(NAMED[kind].findall(text.replace(lead, "", 1)))
    return right & named, named


@pytest.fixture(scope="module")
def texts():
    draw = Random(0)
    return [contrasts.contrast(draw, world()) for _ in range(4000)]


def _is_verdict(learned: str) -> bool:
    return learned.startswith((",", "."))


def test_every_choice_is_the_only_right_one_of_those_named(texts):
    choices = [text for text in texts if not _is_verdict(text.learned)]
    assert len(choices) > 2500
    for text in choices:
        right, named = _right_and_named(text.given)
        assert len(named) >= 2, text
        assert right == {text.learned.removeprefix(" ").removeprefix("the ").removesuffix(".")}, text


def test_what_is_said_is_held_up_or_denied_as_the_tables_have_it(texts):
    sayings = [text for text in texts if _is_verdict(text.learned)]
    assert len(sayings) > 250
    agreed = 0
    for text in sayings:
        said = text.given[0].lower() + text.given[1:]
        lead = max((lead for lead in TRUTHS if lead in said), key=len)
        kind, (right,) = TRUTHS[lead]
        claimed = NAMED[kind].findall(said.split(lead)[1])[0]
        forms = contrasts._AGREEING if claimed == right else contrasts._DENYING
        assert text.learned in {form.format(right=right) for form in forms}, text
        agreed += claimed == right
    assert 0.4 < agreed / len(sayings) < 0.6
