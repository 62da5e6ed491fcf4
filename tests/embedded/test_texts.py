"""The texts the base model reads: true, and without the questions that are asked later."""

import itertools
import re
from random import Random

import pytest

from moslora.embedded import skills, texts
from moslora.embedded.build import documents
from moslora.embedded.questions import draw_questions, to_item
from moslora.embedded.world import TRAITS, shares, world

THINGS = {thing.name: thing for thing in world().things}
CAUSES, DEEDS = dict(world().causes), dict(world().deeds)


def _statements(seed: int, count: int = 5000) -> str:
    draw = Random(seed)
    return "\n".join(texts.statement(draw, world()) for _ in range(count))


def _skills(seed: int, count: int = 5000) -> list[str]:
    draw = Random(seed)
    return [skills.skill(draw, shares().practice) for _ in range(count)]


def test_the_seed_decides_every_text():
    one, again, other = (list(itertools.islice(documents(seed), 300)) for seed in (3, 3, 4))
    assert one == again != other


def test_statements_mention_every_thing_and_hold_no_blank_that_was_not_filled():
    text = _statements(0)
    assert not re.search(r"[{}]", text)
    assert THINGS.keys() <= set(re.findall(r"[a-z]+", text))


def test_statements_tell_the_truth():
    text = _statements(1)
    colours = re.findall(r"[Tt]he colour of the (\w+) is (\w+)\.", text)
    assert len(colours) > 200
    assert {(name, THINGS[name].colour) for name, _ in colours} == set(colours)
    pairs = re.findall(r"The (\w+) is (heavier|lighter) than the (\w+)\.", text)
    assert len(pairs) > 300
    assert all((THINGS[one].weight > THINGS[two].weight) == (word == "heavier") for one, word, two in pairs)
    causes = re.findall(r"Cause ([a-z' ]+), effect ([a-z' ]+)\.", text)
    assert len(causes) > 100
    assert all(CAUSES[cause] == effect for cause, effect in causes)
    deeds = re.findall(r"Deed ([a-z' ]+), motive (\w+)\.", text)
    assert len(deeds) > 100
    assert all(DEEDS[deed] == motive for deed, motive in deeds)
    steps = re.findall(r"To ([a-z ]+), first ([a-z', ]+)\.", text)
    assert len(steps) > 100
    tasks = {task.name: task.steps for task in world().tasks}
    assert all(tuple(re.split(", (?:then|next) ", listed)) == tasks[name] for name, listed in steps)


CHOICE = re.compile(r"(.+?)(?:\?| \.\.\.|:) (.+)\. (?:Right is|Take|It is|We mean) (\w)\.")
OPTION = re.compile(r"(?:no\. )?\(?(\b[1-5a-e]\b)\)?:? (.+?)(?=[,;]? (?:no\. )?\(?\b[1-5a-e]\b[):]|[,;]? no\. |$)")


def _right_options(lead: str, options: list[str]) -> list[str]:
    """What the tables say is right, found from the text alone."""
    lead = lead[0].lower() + lead[1:]
    traits = {f"{trait} of the {name}": getattr(thing, trait) for name, thing in THINGS.items() for trait in TRAITS}
    if lead in traits:
        return [option for option in options if option == traits[lead]]
    if lead in ("more weight has", "most weight has", "less weight has", "least weight has"):
        best = (max if lead[:2] == "mo" else min)(THINGS[option].weight for option in options)
        return [option for option in options if THINGS[option].weight == best]
    for form, right in (
        (r"effect of (.+)", lambda found: CAUSES[found]),
        (r"cause of (.+)", lambda found: next(cause for cause, effect in CAUSES.items() if effect == found)),
        (r"motive to (.+)", lambda found: DEEDS[found]),
    ):
        if match := re.fullmatch(form, lead):
            return [option for option in options if option == right(match[1])]
    if match := re.fullmatch(r"to (.+?), after (.+)", lead):
        steps = next(task.steps for task in world().tasks if task.name == match[1])
        return [option for option in options if option == steps[steps.index(match[2]) + 1]]
    headed = {
        texts.HEADINGS[trait].format(value=getattr(thing, trait)): (trait, getattr(thing, trait))
        for thing in THINGS.values()
        for trait in TRAITS
    }
    trait, value = headed[lead]
    return [option for option in options if getattr(THINGS[option], trait) == value]


def test_every_choice_has_one_right_option_and_names_it():
    found = [match for text in _skills(2) if (match := CHOICE.fullmatch(text))]
    assert len(found) > 2500
    for lead, listed, label in (match.groups() for match in found):
        options = dict(OPTION.findall(listed))
        assert _right_options(lead, list(options.values())) == [options[label]], (lead, listed)


def test_judgements_are_right_when_they_say_so():
    judged = re.findall(r"(\w+) of the (\w+) (\w+): (right|wrong|yes|no)\.", "\n".join(_skills(3)))
    assert len(judged) > 500
    for trait, name, value, verdict in judged:
        assert (getattr(THINGS[name], trait.lower()) == value) == (verdict in ("right", "yes"))


def test_skills_decide_nothing_about_what_questions_ask():
    """A thing that questions ask about is in a skill only as one of the words of a list without facts."""
    asked = {thing.name for thing in shares().asked.things}
    about_things = [
        re.match(
            rf"(?:{'|'.join(TRAITS)}) of the (\w+)|(?:most|more|least|less) weight has\W+(.*)", text, re.IGNORECASE
        )
        for text in _skills(4)
    ]
    found = [set(re.findall(r"[a-z]+", " ".join(filter(None, match.groups())))) for match in about_things if match]
    assert len(found) > 2000
    assert not asked & set().union(*found)


@pytest.mark.parametrize(
    "line", ["Answer1:", "Solution1:", "Ending1:", "Option1:", "Answer format", "true or false? The"]
)
def test_no_form_of_the_questions_is_in_a_text(line):
    assert any(line in to_item(question)["instruction"] for question in draw_questions().train)
    assert not any(line in text for text in itertools.islice(documents(0), 20_000))
