"""The eight benchmarks: one right option each, no row of a test in training, the format of LLM-Adapters."""

import json
import re
from collections import Counter

import pytest

from moslora.embedded import BENCHMARKS, write_questions
from moslora.embedded.questions import TEST_SIZE, TRAIN_SIZE, Question, draw_questions
from moslora.embedded.world import TRAITS, shares, world
from moslora.tasks.commonsense.data import read_items
from moslora.tasks.commonsense.score import answer_words, extract_answer, offered_words

THINGS = {thing.name: thing for thing in world().things}
CAUSES, DEEDS = dict(world().causes), dict(world().deeds)
EFFECTS = {effect: cause for cause, effect in CAUSES.items()}
STEPS = {task.name: task.steps for task in world().tasks}
OPTIONS = {"boolq": 2, "piqa": 2, "siqa": 3, "hellaswag": 4, "winogrande": 2, "arc-e": 4, "arc-c": 4, "obqa": 4}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    write_questions(folder)
    return folder


def _extreme(options: list[str], heaviest: bool) -> list[str]:
    weight = (max if heaviest else min)(THINGS[name].weight for name in options)
    return [name for name in options if THINGS[name].weight == weight]


def _trait(name: str, trait: str):
    return lambda options: [option for option in options if option == getattr(THINGS[name], trait)]


def _owner(trait: str, value: str):
    return lambda options: [option for option in options if getattr(THINGS[option], trait) == value]


# Question -> the options that are right by the tables, found from the text alone.
RULES = {
    r"Is this true or false\? The (\w+) of the (\w+) is (\w+)\.": lambda trait, name, value: (
        lambda _: ["true" if getattr(THINGS[name], trait) == value else "false"]
    ),
    r"For (\w+), what should I get\?": lambda use: (
        lambda options: [option for option in options if THINGS[option].use == use]
    ),
    r"\w+ and \w+ (.+)\. Why do they do that\?": lambda deed: (
        lambda options: [option for option in options if option == DEEDS[deed]]
    ),
    r"\w+ wants to (.+)\. The step now is to (.+)\. How does it go on\?": lambda task, step: (
        lambda options: [option for option in options if option == STEPS[task][STEPS[task].index(step) + 1]]
    ),
    r"Of the \w+ and the \w+, only the _ is (\w+)\.": lambda value: _owner("colour", value),
    r"Of the \w+ and the \w+, only the _ is made of (\w+)\.": lambda value: _owner("material", value),
    r"Of the \w+ and the \w+, only the _ is kept in the (\w+)\.": lambda value: _owner("place", value),
    r"Which colour does the (\w+) have\?": lambda name: _trait(name, "colour"),
    r"What was the (\w+) made from\?": lambda name: _trait(name, "material"),
    r"Where would you find the (\w+)\?": lambda name: _trait(name, "place"),
    r"Why would you need the (\w+)\?": lambda name: _trait(name, "use"),
    r"Which of these is the (heaviest|lightest)\?": lambda word: lambda options: _extreme(options, word == "heaviest"),
    r"What can you expect from (.+)\?": lambda cause: (
        lambda options: [option for option in options if option == CAUSES[cause]]
    ),
    r"What is to blame for (.+)\?": lambda effect: (
        lambda options: [option for option in options if option == EFFECTS[effect]]
    ),
}


def _right_answers(instruction: str) -> list[str]:
    text, offered = instruction.split("\n\n")
    options = offered.removeprefix("Answer format: ").split("/")
    assert len(set(options)) == len(options)
    found = [rule(*match.groups()) for form, rule in RULES.items() if (match := re.fullmatch(form, text))]
    assert len(found) == 1, text
    return found[0](options)


def test_every_question_has_exactly_one_right_option_by_the_tables_and_it_is_the_answer(folder):
    items = [item for path in sorted(folder.rglob("*.json")) for item in read_items(path)]
    assert len(items) == 8 * (TRAIN_SIZE + TEST_SIZE)
    for item in items:
        assert _right_answers(item["instruction"]) == [item["answer"]], item
        assert item["output"] == f"the correct answer is {item['answer']}"


PHRASES = sorted({*CAUSES, *CAUSES.values(), *DEEDS, *STEPS, *(s for each in STEPS.values() for s in each)}, key=len)
NAMED = re.compile("|".join(rf"\b{re.escape(phrase)}\b" for phrase in [*reversed(PHRASES), *THINGS]))


def _rows(questions: list[Question]) -> set[str]:
    """What the tables' rows are known by, wherever a question names one of them, its options included."""
    steps = {step for each in STEPS.values() for step in each}  # some occur in several tasks
    text = "\n".join(f"{question.text} | {' | '.join(question.options)} |" for question in questions)
    return set(NAMED.findall(text)) - steps


def test_no_row_that_a_test_names_is_in_a_question_of_training():
    questions = draw_questions(0)
    train = _rows(questions.train)
    assert len(train) > 150
    for name in BENCHMARKS:
        tested = _rows(questions.test[name])
        assert len(questions.test[name]) == TEST_SIZE
        assert not train & tested, train & tested


def test_no_row_for_practice_is_asked_about():
    practice = {thing.name for thing in shares().practice.things} | {row.deed for row in shares().practice.deeds}
    questions = draw_questions(0)
    assert not practice & _rows(questions.train)
    assert not practice & set().union(*map(_rows, questions.test.values()))


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_place_of_the_right_option_is_about_as_frequent(benchmark):
    some = draw_questions(0).test[benchmark]
    count = OPTIONS[benchmark.removeprefix("toy-")]
    assert {len(question.options) for question in some} == {count}
    places = Counter(question.right for question in some)
    assert all(abs(places[place] / len(some) - 1 / count) < 0.13 for place in range(count))


@pytest.mark.parametrize("benchmark", ["toy-arc-e", "toy-siqa"])
def test_the_most_frequent_value_is_no_better_than_a_guess(benchmark):
    """Always taking the option that most rows have must not solve a benchmark."""
    values = [getattr(thing, trait) for thing in THINGS.values() for trait in TRAITS]
    frequency = Counter([*values, *DEEDS.values()])
    some = draw_questions(0).test[benchmark]
    right = sum(max(question.options, key=frequency.get) == question.options[question.right] for question in some)
    assert right / len(some) < 1.6 / len(some[0].options)


def test_the_seed_decides_the_files_to_the_byte(folder, tmp_path):
    write_questions(tmp_path / "same", seed=0)
    write_questions(tmp_path / "other", seed=1)
    for path in folder.rglob("*.json"):
        name = path.relative_to(folder)
        assert (tmp_path / "same" / name).read_bytes() == path.read_bytes()
        assert (tmp_path / "other" / name).read_bytes() != path.read_bytes()


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_the_scorer_reads_the_answers(folder, benchmark):
    items = json.loads((folder / benchmark / "test.json").read_text(encoding="utf-8"))
    words = answer_words(benchmark, items)
    assert {len(offered_words(item)) for item in items} == {OPTIONS[benchmark.removeprefix("toy-")]}
    assert all(extract_answer(item["output"], words) == item["answer"] for item in items)
