"""From votes to the paper's Table 6: win, tie and loss of B against A, with what they are worth."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .... import runs
from ....errors import DataError
from .agreement import alpha
from .intervals import METHOD, grouped_sign_test, pigeonhole, shares, sign_test
from .questions import QUESTIONS, outcome
from .store import Store
from .voting import progress

ALL = "all subjects"


class Vote(NamedTuple):
    """An answer that counts."""

    rater: int
    kind: str  # pair, or an attention check: same, noise
    subject: str
    prompt: str
    prompt_index: int
    seed: int
    item: int
    question: str
    answer: str  # left, tie, right
    b_left: bool
    outcome: int  # of B against A: 1, 0, -1
    given: str  # time


_VOTES = """
    SELECT rater, kind, subjects.name AS subject, prompt, prompt_index, seed, items.id AS item, question, answer,
        b_left, given
    FROM votes JOIN plan USING (rater, place) JOIN items ON items.id = plan.item
        JOIN subjects ON subjects.id = items.subject
    WHERE undone IS NULL ORDER BY votes.id
"""


def read_votes(store: Store) -> list[Vote]:
    """Every vote that counts, in the order in which they were given."""
    votes = []
    for row in store.rows(_VOTES):
        left = bool(row["b_left"])
        votes.append(Vote(**{**dict(row), "b_left": left}, outcome=outcome(row["answer"], left)))
    return votes


def score_study(folder: Path, max_failures: int = 1, seed: int = 0) -> tuple[dict[str, Any], list[Vote]]:
    """Results of a study, and the votes they come from.

    Args:
        folder: of the study.
        max_failures: attention checks that a rater may fail; results are given with and without those who fail more.
        seed: of the bootstrap.

    Raises:
        DataError: the folder holds no study, or nobody has voted yet.
    """
    store = Store(folder)
    try:
        study = runs.read_json(folder / "study.json")
        votes, raters = read_votes(store), progress(store)
    finally:
        store.close()
    pairs = [vote for vote in votes if vote.kind == "pair"]
    if not pairs:
        raise DataError(f"Nobody has voted in {folder} yet: `moslora rate serve {folder}` lets raters in.")
    attention = check_attention(votes, max_failures)
    careless = {row["rater"] for row in attention if row["careless"]}
    careful = [vote for vote in pairs if vote.rater not in careless]
    begun = [each for each in raters if each.last]
    return {
        "a": study["a"],
        "b": study["b"],
        "title": study["settings"]["title"],
        "created": study["created"],
        "pairs": sum(subject["pairs"] for subject in study["subjects"]),
        "subjects": len(study["subjects"]),
        "raters": len({vote.rater for vote in pairs}),
        "finished": sum(each.done == each.total for each in begun),
        "invited": len(raters),
        "votes": len(pairs),
        "max_failures": max_failures,
        "seed": seed,
        "interval_method": METHOD,
        "table": table(pairs, seed),
        "careful_table": table(careful, seed) if careless and careful else None,
        "tests": tests(pairs),
        "agreement": agreement(pairs),
        "attention": attention,
        "sides": sides(pairs),
    }, votes


def table(votes: Sequence[Vote], seed: int = 0) -> list[dict[str, Any]]:
    """Table 6: a row for each question over all votes and, if there are several, for each subject.

    Every vote weighs the same, as in the paper. Shares are in [0, 1]; intervals are None where they cannot be had.
    """
    subjects = sorted({vote.subject for vote in votes})
    rows = []
    for question in QUESTIONS:
        for subject in (ALL, *subjects) if len(subjects) > 1 else subjects:
            own = [vote for vote in votes if vote.question == question.key and subject in (ALL, vote.subject)]
            if not own:
                continue
            found = pigeonhole([vote.rater for vote in own], _clusters(own), [vote.outcome for vote in own], seed)
            rows.append(
                {
                    "question": question.key,
                    "metric": question.name,
                    "paper": question.paper,
                    "subject": subject,
                    "votes": len(own),
                    "raters": len({vote.rater for vote in own}),
                    "prompts": len(set(_clusters(own))),
                    **shares([vote.outcome for vote in own])._asdict(),
                    "intervals": found,
                }
            )
    return rows


def tests(votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """Sign tests of each question: over votes, over prompts and over raters."""
    found = []
    for question in QUESTIONS:
        own = [vote for vote in votes if vote.question == question.key]
        outcomes = [vote.outcome for vote in own]
        units = {
            "votes": sign_test(outcomes.count(1), outcomes.count(-1)),
            "prompts": grouped_sign_test(_clusters(own), outcomes),
            "raters": grouped_sign_test([vote.rater for vote in own], outcomes),
        }
        found += [
            {"question": question.key, "metric": question.name, "unit": unit, **test._asdict()}
            for unit, test in units.items()
        ]
    return found


def agreement(votes: Sequence[Vote]) -> list[dict[str, Any]]:
    """Krippendorff's alpha of each question over the pairs: ordinal (loss, tie, win) and nominal."""
    found = []
    for question in QUESTIONS:
        units: dict[int, list[float]] = {}
        for vote in votes:
            if vote.question == question.key:
                units.setdefault(vote.item, []).append(vote.outcome)
        compared = [unit for unit in units.values() if len(unit) > 1]
        found.append(
            {
                "question": question.key,
                "metric": question.name,
                "pairs": len(compared),
                "ordinal": alpha(compared, "ordinal"),
                "nominal": alpha(compared, "nominal"),
            }
        )
    return found


def check_attention(votes: Iterable[Vote], max_failures: int) -> list[dict[str, Any]]:
    """Attention checks, one row a rater.

    A picture beside itself is failed by anything but two ties. A photograph of the subject beside noise is failed
    unless the photograph is the better subject, or if the noise fits the description better.
    """
    rows: dict[int, dict[str, Any]] = {}
    failed: set[tuple[int, int]] = set()
    seen: dict[tuple[int, int], str] = {}
    for vote in votes:
        rows.setdefault(vote.rater, {"rater": vote.rater, "same_failed": 0, "noise_failed": 0, "checks": 0})
        if vote.kind == "pair":
            continue
        key = (vote.rater, vote.item)
        seen[key] = vote.kind
        least = 1 if vote.question == "subject" else 0
        if (vote.kind == "same" and vote.outcome != 0) or (vote.kind == "noise" and vote.outcome < least):
            failed.add(key)
    for (rater, item), kind in seen.items():
        rows[rater]["checks"] += 1
        rows[rater][f"{kind}_failed"] += (rater, item) in failed
    for row in rows.values():
        row["careless"] = row["same_failed"] + row["noise_failed"] > max_failures
    return [rows[rater] for rater in sorted(rows)]


def sides(votes: Sequence[Vote]) -> dict[str, Any]:
    """Whether raters like one side: answers by side, and a sign test over raters."""
    counts = {answer: sum(vote.answer == answer for vote in votes) for answer in ("left", "tie", "right")}
    liking = {"left": 1, "tie": 0, "right": -1}
    test = grouped_sign_test([vote.rater for vote in votes], [liking[vote.answer] for vote in votes])
    by_rater = []
    for rater in sorted({vote.rater for vote in votes}):
        own = [vote.answer for vote in votes if vote.rater == rater]
        each = {answer: own.count(answer) for answer in ("left", "tie", "right")}
        by_rater.append({"rater": rater, **each, "p": sign_test(each["left"], each["right"]).p})
    return {**counts, "raters_left": test.wins, "raters_right": test.losses, "p": test.p, "by_rater": by_rater}


def _clusters(votes: Iterable[Vote]) -> list[int]:
    """A number for the subject and prompt of each vote."""
    numbers: dict[tuple[str, str], int] = {}
    return [numbers.setdefault((vote.subject, vote.prompt), len(numbers)) for vote in votes]
