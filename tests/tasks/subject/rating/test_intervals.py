"""Intervals and sign tests against scipy, hand-made cases, and simulated studies of known truth."""

import numpy as np
import pytest
from scipy import stats

from moslora.tasks.subject.rating import intervals
from moslora.tasks.subject.rating.intervals import grouped_sign_test, pigeonhole, shares, sign_test

from .simulated import Population


def _flat(outcomes):
    """Rater, prompt and outcome of each vote."""
    places = np.indices(outcomes.shape)
    return places[0].ravel().tolist(), places[1].ravel().tolist(), outcomes.ravel().tolist()


def test_shares_by_hand():
    assert shares([1, 1, 0, -1]) == (0.5, 0.25, 0.25, 0.25)


@pytest.mark.parametrize(("wins", "losses"), [(0, 1), (5, 5), (9, 1), (17, 30), (111, 79), (900, 1000), (2400, 2100)])
def test_the_sign_test_is_the_exact_binomial_test(wins, losses):
    assert sign_test(wins, losses).p == pytest.approx(stats.binomtest(wins, wins + losses).pvalue, rel=1e-9)
    assert sign_test(losses, wins).p == sign_test(wins, losses).p


def test_nothing_but_ties_has_no_p():
    assert sign_test(0, 0).p is None
    assert grouped_sign_test([1, 1, 2, 2], [1, -1, 0, 0]) == (0, 0, None)


def test_groups_count_once():
    # rater 1: 3 wins to 1 loss; rater 2: 1 to 2; rater 3: even; rater 4: only a win
    groups = [1, 1, 1, 1, 2, 2, 2, 3, 3, 4]
    found = grouped_sign_test(groups, [1, 1, 1, -1, -1, -1, 1, 1, -1, 1])
    assert (found.wins, found.losses) == (2, 1)
    assert found.p == 1.0


def test_the_bootstrap_has_the_variance_that_owen_derives():
    """For a full table without effects, E of the bootstrap variance is s2 / (R C) (3 - 1 / R - 1 / C - 1 / (R C))."""
    draw, size = np.random.default_rng(0), (12, 9)
    found = []
    for seed in range(150):
        outcomes = draw.choice([-1, 0, 1], (*size, 1))
        interval = pigeonhole(*_flat(outcomes), seed)["delta"]
        found.append(((interval[1] - interval[0]) / (2 * 1.96)) ** 2 * 8 / 9)  # without the widening for 9 prompts
    rows, columns = size
    expected = 2 / 3 / (rows * columns) * (3 - 1 / rows - 1 / columns - 1 / (rows * columns))
    assert np.mean(found) == pytest.approx(expected, rel=0.12)


def test_the_order_of_votes_and_the_names_of_raters_change_nothing_but_the_draws():
    outcomes = Population(0.3, 0.3, 0.5, 0.3).draw(np.random.default_rng(1), 15, 20)
    raters, prompts, flat = _flat(outcomes)
    first = pigeonhole(raters, prompts, flat, 0)
    assert first == pigeonhole(raters, prompts, flat, 0)
    order = np.random.default_rng(2).permutation(len(flat))
    shuffled = pigeonhole([raters[i] + 5 for i in order], [prompts[i] for i in order], [flat[i] for i in order], 0)
    assert first == shuffled
    other = pigeonhole(raters, prompts, flat, 1)
    assert other != first
    assert other["delta"] == pytest.approx(first["delta"], abs=0.03)


def test_too_few_raters_or_prompts_have_no_interval():
    assert pigeonhole([1, 1], [1, 2], [1, 0], 0) is None
    assert pigeonhole([1, 2], [1, 1], [1, 0], 0) is None
    assert pigeonhole([1, 2], [1, 2], [1, 0], 0) is not None  # draws that miss both votes are left out


@pytest.mark.parametrize(
    ("population", "size"),
    [
        (Population(0.3, 0.3, 0.5, 0.3), (15, 32, 1)),  # the paper's size: 15 raters, 4 subjects of 8 prompts
        (Population(0.0, 0.5, 0.8, 0.5), (15, 32, 1)),
        (Population(1.0, 0.3, 0.5, 0.3), (15, 25, 8)),
        (Population(0.5, 0.0, 0.0, 0.0), (15, 32, 1)),
    ],
)
def test_intervals_hold_the_truth_where_independent_votes_would_not(monkeypatch, population, size):
    monkeypatch.setattr(intervals, "DRAWS", 400)
    studies, truth, draw = 300, population.truth(), np.random.default_rng(3)
    held, naive = 0, 0
    for seed in range(studies):
        outcomes = population.draw(draw, *size)
        low, high = pigeonhole(*_flat(outcomes), seed)["delta"]
        held += low <= truth["delta"] <= high
        naive += abs(outcomes.mean() - truth["delta"]) < 1.96 * outcomes.std() / np.sqrt(outcomes.size)
    assert held / studies > 0.95 - 4 * np.sqrt(0.95 * 0.05 / studies)
    if population.prompts:
        assert naive / studies < 0.75  # what a 95 % interval of independent votes really holds


def test_win_tie_and_loss_have_intervals_inside_zero_and_one():
    population = Population(1.8, 0.3, 0.5, 0.3)
    found = pigeonhole(*_flat(population.draw(np.random.default_rng(0), 15, 8)), 0)
    truth = population.truth()
    for share in ("win", "tie", "loss"):
        low, high = found[share]
        assert 0 <= low <= truth[share] <= high <= 1
