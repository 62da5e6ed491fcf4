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


def _skills(seed: int, count: int = 5000) -> list[skills.Exercise]:
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


GIVEN = re.compile(r"(.+?)[?:] (\(?[1a]\b.+)\.")
OPTION = re.compile(r"\(?\b([1-5a-e])(?:\)|:) (.+?)(?=,? \(?\b[1-5a-e](?:\)|:)|$)")
ANSWER = re.compile(r" (?:Right is|Take|It is|We mean) (?:([^.]+), so )?(\w)\.(?: Not ([^.]+)\.)?")


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


def test_every_choice_has_one_right_option_and_names_its_label():
    choices = [text for text in _skills(2) if ANSWER.fullmatch(text.learned)]
    assert len(choices) > 3500
    for text in choices:
        lead, listed = GIVEN.fullmatch(text.given).groups()
        words, label, rest = ANSWER.fullmatch(text.learned).groups()
        options = dict(OPTION.findall(listed))
        assert rest is None or {f"{option} {other}" for other, option in options.items() if other != label} == set(
            rest.split(", ")
        )
        assert _right_options(lead, list(options.values())) == [options[label]], text
        assert words in (None, options[label])


def test_judgements_are_right_when_they_say_so():
    judged = [text for text in _skills(3) if not ANSWER.fullmatch(text.learned)]
    assert len(judged) > 500
    for text in judged:
        trait, name, value = re.fullmatch(r"(\w+) of the (\w+) (\w+):", text.given).groups()
        said, verdict = re.fullmatch(r"(?: \((\w+)\))? (right|wrong|yes|no)\.", text.learned).groups()
        truth = getattr(THINGS[name], trait.lower())
        assert (truth == value) == (verdict in ("right", "yes"))
        assert said in (None, truth)


def test_a_look_up_finds_every_word_at_its_label():
    draw = Random(4)
    for _ in range(500):
        text = skills.lookup(draw, world())
        options = {option: label for label, option in OPTION.findall(text.given.removesuffix("."))}
        found = re.findall(r"(?:(\w\w+) at (\w)|(\w) (\w\w+))[,.]", text.learned.removeprefix(" Found: "))
        assert {one or four: two or three for one, two, three, four in found} == options
        assert 2 <= len(options) <= 5


def test_skills_are_about_the_rows_for_practice():
    """A thing that questions ask about is in no skill with facts."""
    asked = {thing.name for thing in shares().asked.things}
    about = [
        re.match(rf"(?i:{'|'.join(TRAITS)}) of the (\w+)|(?:Most|More|Least|Less) weight has\W+(.*)", text.given)
        for text in _skills(4)
    ]
    found = [set(re.findall(r"[a-z]+", " ".join(filter(None, match.groups())))) for match in about if match]
    assert len(found) > 2000
    assert not asked & set().union(*found)


def test_texts_begin_with_few_rows_and_no_skill_and_end_with_all():
    texts_of = list(itertools.islice(documents(0, growth=4000), 12_000))
    mentioned = [
        THINGS.keys() & set(re.findall(r"[a-z]+", " ".join(text.learned for text in part if not text.given)))
        for part in (texts_of[:800], texts_of[4000:])
    ]
    assert len(mentioned[0]) < 40
    assert mentioned[1] == THINGS.keys()
    assert not any(ANSWER.fullmatch(text.learned) for text in texts_of[:600])


@pytest.mark.parametrize(
    "line", ["Answer format:", "true or false? The", "Which colour does the", "What can you expect", "wants to make"]
)
def test_no_form_of_the_questions_is_in_a_text(line):
    assert any(line in to_item(question)["instruction"] for question in draw_questions().train)
    assert not any(line in text.given + text.learned for text in itertools.islice(documents(0), 20_000))
