"""The judge: asked once, patient, never guessing, and its key never written."""

import email.utils
import gzip
import json
import time

import pytest

from moslora.errors import ConfigError, RunError
from moslora.tasks.vision_language.evaluation.judge import TRIES, Judge
from moslora.tasks.vision_language.evaluation.judging import extract, grade_prompt
from moslora.tasks.vision_language.evaluation.mmvet import parse_grade, score_mmvet
from tests.helpers import data_folder

from .judge_server import judge_server

KEY = "sk-very-secret"


@pytest.fixture
def judge(monkeypatch):
    """Makes judges that do not really wait, and notes how long they would have."""
    monkeypatch.setenv("MY_KEY", KEY)
    waits = []

    def make(server, **more):
        return Judge(server.url, "gpt", "MY_KEY", **{"workers": 1, "timeout_seconds": 5, "sleep": waits.append, **more})

    make.waits = waits
    return make


def upper(reply):
    return reply.upper() if reply.isalpha() else None


def test_every_prompt_is_asked_once_and_never_again(judge, tmp_path):
    with judge_server(lambda number, prompt: f"{prompt}b") as server:
        assert judge(server).ask(["x", "y", "x"], upper, tmp_path / "judge.jsonl") == ["XB", "YB", "XB"]
        assert server.prompts == ["x", "y"]
        assert judge(server).ask(["y", "z"], upper, tmp_path / "judge.jsonl") == ["YB", "ZB"]
        assert server.prompts == ["x", "y", "z"]
    assert server.requests[0]["path"] == "/v1/chat/completions"
    assert (server.requests[0]["model"], server.requests[0]["temperature"]) == ("gpt", 0.0)


def test_another_model_is_asked_anew(judge, tmp_path, monkeypatch):
    with judge_server(lambda number, prompt: f"{'ab'[number - 1]}") as server:
        assert judge(server).ask(["x"], upper, tmp_path / "judge.jsonl") == ["A"]
        other = Judge(server.url, "another", "MY_KEY")
        assert other.ask(["x"], upper, tmp_path / "judge.jsonl") == ["B"]


def test_the_key_is_sent_and_written_nowhere(judge, tmp_path):
    with judge_server(lambda number, prompt: "yes") as server:
        asked = judge(server)
        asked.ask(["x"], upper, tmp_path / "judge.jsonl")
    assert server.keys == [f"Bearer {KEY}"]
    assert KEY not in (tmp_path / "judge.jsonl").read_text() + json.dumps(asked.describe())
    with judge_server(lambda number, prompt: 401) as server, pytest.raises(RunError) as error:
        judge(server).ask(["x"], upper, tmp_path / "judge.jsonl")
    assert "status 401: refused Bearer ***" in str(error.value)
    assert KEY not in str(error.value)
    assert len(server.requests) == 1  # a refusal is no reason to try again


def test_a_local_server_needs_no_key(judge, tmp_path, monkeypatch):
    monkeypatch.delenv("MY_KEY")
    with judge_server(lambda number, prompt: "yes") as server:
        assert judge(server).ask(["x"], upper, tmp_path / "judge.jsonl") == ["YES"]
    assert server.keys == [None]


@pytest.mark.parametrize("trouble", [500, 503, b"<html>", b'{"choices": []}', b'{"choices": [{"message": {}}]}'])
def test_failures_are_tried_again_with_growing_pauses(judge, tmp_path, trouble):
    with judge_server(lambda number, prompt: trouble if number < 4 else "fine") as server:
        assert judge(server).ask(["x"], upper, tmp_path / "judge.jsonl") == ["FINE"]
    assert len(server.requests) == 4
    assert judge.waits == [1, 2, 4]


def test_a_stalled_reply_is_given_up_and_tried_again(judge, tmp_path):
    with judge_server(lambda number, prompt: 3.0 if number == 1 else "fine") as server:
        started = time.perf_counter()
        assert judge(server, timeout_seconds=0.3).ask(["x"], upper, tmp_path / "judge.jsonl") == ["FINE"]
        assert time.perf_counter() - started < 2
    assert judge.waits == [1]


def test_retry_after_is_honoured_as_seconds_and_as_a_date(judge, tmp_path):
    date = email.utils.formatdate(time.time() + 50, usegmt=True)
    headers = {1: {"Retry-After": "7"}, 2: {"Retry-After": date}, 3: {"Retry-After": "soon"}}
    with judge_server(lambda number, prompt: (429, headers[number]) if number < 4 else "fine") as server:
        assert judge(server).ask(["x"], upper, tmp_path / "judge.jsonl") == ["FINE"]
    assert judge.waits[0] == 7
    assert judge.waits[1] == pytest.approx(50, abs=5)
    assert judge.waits[2] == 4


def test_a_judge_that_stays_away_is_an_error_and_what_it_said_is_kept(judge, tmp_path):
    cache = tmp_path / "judge.jsonl"
    with judge_server(lambda number, prompt: "fine" if prompt == "x" else 500) as server:
        with pytest.raises(RunError, match=f"does not answer after {TRIES} tries .status 500"):
            judge(server).ask(["x", "y"], upper, cache)
        assert server.prompts == ["x"] + ["y"] * TRIES
        assert judge(server).ask(["x"], upper, cache) == ["FINE"]
        assert len(server.requests) == 1 + TRIES
    with judge_server(lambda number, prompt: (429, {"Retry-After": "3600"})) as server:
        with pytest.raises(RunError, match="it asks to wait 3600 seconds"):
            judge(server).ask(["z"], upper, cache)
        assert len(server.requests) == 1


def test_nobody_at_the_address_is_an_error(judge, tmp_path):
    with judge_server(lambda number, prompt: "fine") as server:
        pass
    with pytest.raises(RunError, match="ConnectionError"):
        judge(server).ask(["x"], upper, tmp_path / "judge.jsonl")


def test_nonsense_is_asked_again_warmer_three_times_and_then_lost(judge, tmp_path):
    cache = tmp_path / "judge.jsonl"
    with judge_server(lambda number, prompt: "1234" if prompt == "x" or number < 5 else "fine") as server:
        assert judge(server).ask(["x", "y"], upper, cache) == [None, "FINE"]
        assert [request["temperature"] for request in server.requests] == [0.0, 0.5, 1.0, 0.0, 0.5]
        assert judge(server).ask(["x", "y"], upper, cache) == [None, "FINE"]
        assert len(server.requests) == 5


def test_several_workers_give_the_same_answers_in_order(judge, tmp_path):
    prompts = [f"number {'abcdefghij'[number]}" for number in range(10)]
    with judge_server(lambda number, prompt: prompt[-1]) as server:
        done = []
        found = judge(server, workers=5).ask(prompts, upper, tmp_path / "judge.jsonl", lambda: done.append(1))
    assert found == list("ABCDEFGHIJ")
    assert len(done) == 10
    assert len((tmp_path / "judge.jsonl").read_text().splitlines()) == 10


def test_a_cache_that_a_crash_cut_off_is_used_as_far_as_it_goes(judge, tmp_path):
    cache = tmp_path / "judge.jsonl"
    with judge_server(lambda number, prompt: "fine") as server:
        judge(server).ask(["x", "y"], upper, cache)
        cache.write_text(cache.read_text()[:-5])
        assert judge(server).ask(["x", "y"], upper, cache) == ["FINE", "FINE"]
        assert server.prompts == ["x", "y", "y"]


@pytest.mark.parametrize(
    ("url", "model", "message"),
    [
        ("api.openai.com", "gpt", "--judge-url"),
        ("http://x", "", "--judge-model"),
        ("http://me:secret@x/v1", "gpt", "password, and is"),
    ],
)
def test_settings_of_a_judge_are_checked(url, model, message):
    with pytest.raises(ConfigError, match=message):
        Judge(url, model)


ROW = {"index": "1", "question": "Which animal?", "A": "a dog", "B": "a cat", "C": "", "answer": "B"}


@pytest.mark.parametrize(
    ("reply", "prediction", "by"),
    [
        ("B", "B", "judge"), ("b.", "B", "judge"), ("Letter: A", "A", "judge"),
        ("C", None, None), ("none", None, None), ("It is B", None, None),
    ],
)  # fmt: skip
def test_the_judge_names_an_option_that_is_there_or_none(reply, prediction, by):
    asked = []

    def ask(prompts, parse):
        asked.extend(prompts)
        return [parse(reply) for _ in prompts]

    rows = [{**ROW, "output": "It purrs."}, {**ROW, "output": "B"}, {**ROW, "output": " "}]
    found = extract(rows, "circular", ask)
    assert [(row["prediction"], row["by"]) for row in found] == [(prediction, by), ("B", "rule"), (None, None)]
    assert len(asked) == 1  # neither what a rule reads nor an empty answer
    assert "A. a dog\nB. a cat\n" in asked[0]
    assert "It purrs." in asked[0]
    assert "answer is B" not in asked[0]  # the judge does not see what is right


def test_without_a_judge_unread_answers_are_lost_and_never_drawn():
    rows = [{**ROW, "output": f"something {number}"} for number in range(50)]
    assert {row["prediction"] for row in extract(rows, "choice", None)} == {None}


def test_yes_or_no_and_extractions_are_judged_too():
    rows = [{"index": "1", "question": "Is it a dog?", "answer": "Yes", "output": "It is."}]
    assert extract(rows, "yes-no", lambda prompts, parse: [parse("Yes.")])[0]["prediction"] == "Yes"
    assert extract(rows, "yes-no", lambda prompts, parse: [parse("none")])[0]["prediction"] is None
    row = {
        "index": "1",
        "question": "How many?",
        "question_type": "free_form",
        "answer_type": "integer",
        "answer": "14",
    }
    row["output"] = "First 3, then 11, so 14 in all."
    asked = []

    def ask(prompts, parse):
        asked.extend(prompts)
        return [parse("Final answer: 14\nbecause")]

    assert extract([row], "mathvista", ask)[0]["extraction"] == "14"
    assert "a whole number in digits" in asked[0]
    assert "First 3, then 11" in asked[0]


def test_real_answers_of_mm_vet_are_put_to_a_judge_and_its_grades_averaged(judge, tmp_path):
    with gzip.open(data_folder("vlm_real_outputs") / "mmvet_llava_llama2_13b.json.gz") as file:
        outputs = json.load(file)
    # The questions and ground truths are not at hand: stand-ins, so that every real answer is graded.
    rows = [
        {
            "index": name,
            "question": f"Question {name}?",
            "answer": "x<AND>y<OR>z",
            "category": "rec,ocr",
            "output": output,
        }
        for name, output in outputs.items()
    ]
    grades = {row["output"]: len(row["output"]) % 11 / 10 for row in rows}

    def act(number, prompt):
        output = prompt.rpartition("\nPrediction: ")[2].removesuffix("\nGrade:")
        return f"{grades[output]:.1f}"

    with judge_server(act) as server:
        asked = judge(server)
        found = extract(rows, "mmvet", lambda prompts, parse: asked.ask(prompts, parse, tmp_path / "judge.jsonl"))
        again = extract(rows, "mmvet", lambda prompts, parse: asked.ask(prompts, parse, tmp_path / "judge.jsonl"))
    assert found == again
    assert len(server.requests) == len({grade_prompt(row) for row in rows}) == 218
    assert "x <AND> y <OR> z" in server.prompts[0]
    assert score_mmvet(found)["score"] == pytest.approx(sum(grades[row["output"]] for row in rows) / 218)
    assert parse_grade("0.7") == 0.7
