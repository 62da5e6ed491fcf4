"""A study of 200 pairs and 15 raters whose votes are known: the table, its intervals, and everything beside it."""

import csv
import json
from collections import Counter

import numpy as np
import pytest

from moslora.cli import main
from moslora.errors import DataError
from moslora.report.rating import bars_figure
from moslora.tasks.subject.rating import voting
from moslora.tasks.subject.rating.score import score_study
from moslora.tasks.subject.rating.store import Store

from .simulated import Population, vote_everything
from .studies import SECRET_A, SECRET_B, make_study

TRUTH = {"subject": Population(0.15, 0.3, 0.4, 0.2), "prompt": Population(0.9, 0.3, 0.4, 0.2)}
SUBJECTS = ("robot", "kettle", "lantern", "owl")
RATERS, CARELESS = 15, (4, 11)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    """200 pairs (4 subjects, 25 prompts, 2 seeds), 15 raters, all votes; and the outcomes that were meant."""
    folder = make_study(tmp_path_factory.mktemp("big"), SUBJECTS, prompts=25, size=32)
    store = Store(folder)
    store.add_raters(RATERS)
    draw, drawn = np.random.default_rng(5), {}
    for question, population in TRUTH.items():
        drawn[question] = population.draw(draw, RATERS, 100, 2)
    known = {}

    def opinion(rater, item, question):
        prompt = 25 * (item["subject"] - 1) + item["prompt_index"]
        known[rater, item["id"], question] = int(drawn[question][rater - 1, prompt, item["seed"]])
        return known[rater, item["id"], question]

    vote_everything(store, opinion, CARELESS)
    subject_of = {row["id"]: SUBJECTS[row["subject"] - 1] for row in store.rows("SELECT id, subject FROM items")}
    store.close()
    return folder, known, subject_of


def test_the_table_is_exactly_that_of_the_known_votes(scored):
    folder, known, subject_of = scored
    scores, votes = score_study(folder)
    assert scores["pairs"] == 200
    assert scores["votes"] == len(known) == 200 * 15 * 2
    assert len(votes) == 204 * 15 * 2
    assert len(scores["table"]) == 2 * 5
    for row in scores["table"]:
        own = Counter(
            outcome
            for (_, item, question), outcome in known.items()
            if question == row["question"] and row["subject"] in ("all subjects", subject_of[item])
        )
        total = sum(own.values())
        assert row["votes"] == total == (3000 if row["subject"] == "all subjects" else 750)
        assert row["raters"] == 15
        assert row["prompts"] == total // 30
        assert (row["win"], row["tie"], row["loss"]) == (own[1] / total, own[0] / total, own[-1] / total)
        assert row["delta"] == pytest.approx((own[1] - own[-1]) / total)


def test_the_intervals_hold_the_truth_and_tell_the_two_questions_apart(scored):
    scores, _ = score_study(scored[0])
    for row in scores["table"]:
        if row["subject"] == "all subjects":
            for share, true in TRUTH[row["question"]].truth().items():
                low, high = row["intervals"][share]
                assert low <= true <= high, f"{row['question']}, {share}"
    delta = {row["question"]: row["intervals"]["delta"] for row in scores["table"] if row["subject"] == "all subjects"}
    assert delta["prompt"][0] > 0.3
    assert delta["prompt"][1] - delta["prompt"][0] < 0.35


def test_sign_tests_agreement_and_sides(scored):
    folder, known, _ = scored
    scores, _ = score_study(folder)
    tests = {(row["question"], row["unit"]): row for row in scores["tests"]}
    for question in TRUTH:
        counts = Counter(outcome for (_, _, each), outcome in known.items() if each == question)
        assert (tests[question, "votes"]["wins"], tests[question, "votes"]["losses"]) == (counts[1], counts[-1])
    assert tests["prompt", "raters"]["wins"] == 15
    assert tests["prompt", "raters"]["p"] == pytest.approx(2 / 2**15)
    assert tests["prompt", "prompts"]["wins"] > 80
    assert tests["subject", "votes"]["p"] < tests["subject", "raters"]["p"]
    for row in scores["agreement"]:
        assert row["pairs"] == 200
        assert 0.05 < row["ordinal"] < 0.4
    sides = scores["sides"]
    assert sides["left"] + sides["tie"] + sides["right"] == 6000
    assert sides["p"] > 0.01
    assert sum(row["left"] for row in sides["by_rater"]) == sides["left"]


def test_careless_raters_are_found_and_left_out_of_a_second_table(scored):
    folder, known, _ = scored
    scores, _ = score_study(folder)
    found = {row["rater"] for row in scores["attention"] if row["careless"]}
    assert found == set(CARELESS)
    assert all(row["checks"] == 4 for row in scores["attention"])
    careful = next(row for row in scores["careful_table"] if row["question"] == "prompt")
    own = [each for (rater, _, question), each in known.items() if question == "prompt" and rater not in CARELESS]
    assert careful["votes"] == len(own) == 13 * 200
    assert careful["win"] == own.count(1) / len(own)
    strict, _ = score_study(folder, max_failures=4)
    assert strict["careful_table"] is None


def test_the_command_writes_report_figure_and_every_vote(scored, capsys, tmp_path):
    folder, known, _ = scored
    out = tmp_path / "score"
    assert main(["rate", "score", str(folder), "--out", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"Prompt consistency: {SECRET_B} was better in" in printed
    assert f"raters prefer {SECRET_B}" in printed
    with (out / "votes.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = {
        (int(row["rater"]), int(row["item"]), row["question"]): int(row["outcome"])
        for row in rows
        if row["kind"] == "pair"
    }
    assert found == known
    tokens = [rater.token for rater in Store(folder).raters()]
    for path in out.iterdir():
        content = path.read_bytes()
        assert not [token for token in tokens if token.encode() in content], f"{path.name} gives links away"
    assert (out / "table6.png").read_bytes().startswith(b"\x89PNG")
    scores = json.loads((out / "scores.json").read_text())
    with (out / "table.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row["delta"]) for row in table] == [row["delta"] for row in scores["table"]]
    report = (out / "report.md").read_text()
    for words in ("23.1", "+34.3", "paper, SDXL, MoSLoRA against LoRA", "Krippendorff", "pigeonhole", "Careful raters"):
        assert words in report
    assert SECRET_A in report
    assert main(["rate", "score", str(folder), "--out", str(out)]) == 0  # draws its own files again


def test_unfinished_studies_say_so_and_empty_ones_are_refused(folder, capsys):
    with pytest.raises(DataError, match="Nobody has voted"):
        score_study(folder)
    store = Store(folder)
    rater, _ = store.add_raters(2)
    for place in range(1, 7):
        for question in rater.questions:
            voting.vote(store, rater, place, question, "left")
    store.close()
    scores, _ = score_study(folder)
    assert scores["table"][0]["intervals"] is None
    assert main(["rate", "score", str(folder)]) == 0
    assert "2 of 2 raters have not finished" in capsys.readouterr().out
    assert main(["rate", "score", str(folder.parent)]) == 1
    assert "moslora rate build" in capsys.readouterr().err


def test_votes_that_were_taken_back_do_not_count(folder):
    store = Store(folder)
    rater = store.add_raters(1)[0]
    for answer in ("left", "right"):
        voting.vote(store, rater, 1, "subject", answer)
    voting.vote(store, rater, 1, "prompt", "left")
    voting.undo(store, rater)
    _, votes = score_study(folder)
    assert [(vote.question, vote.answer) for vote in votes] == [("subject", "right")]


def test_the_figure_has_bars_that_add_up_to_all_votes(scored):
    scores, _ = score_study(scored[0])
    figure = bars_figure(scores["table"], "lora", "moslora", published=True)
    assert len(figure.axes) == 4  # two panels, and the differences at the right of each
    for axes in figure.axes[:2]:
        assert len(axes.patches) == 3 * 6  # all, four subjects, the paper
        ends = {}
        for bar in axes.patches:
            ends[bar.get_y()] = max(ends.get(bar.get_y(), 0), bar.get_x() + bar.get_width())
        assert list(ends.values()) == pytest.approx([100] * 6)
        assert [label.get_text() for label in axes.get_yticklabels()][-1] == "paper (SDXL)"
