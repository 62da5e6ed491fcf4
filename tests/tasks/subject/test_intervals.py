"""Bootstrap intervals and paired comparisons: they cover what they should, and say no more than they know."""

import numpy as np
import pytest

from moslora.tasks.subject.metrics.bootstrap import bootstrap
from moslora.tasks.subject.metrics.compare import CAVEAT, compare
from moslora.tasks.subject.metrics.pictures import Photograph, Picture, Subject
from moslora.tasks.subject.metrics.scores import Measured


def by_hand(values, resamples, random, within=True):
    """The same bootstrap as loops."""
    means = []
    for _ in range(resamples):
        photographs = random.integers(values[0].shape[1], size=values[0].shape[1])
        drawn = []
        for prompt in random.integers(len(values), size=len(values)):
            rows = values[prompt]
            pictures = random.integers(len(rows), size=len(rows)) if within else range(len(rows))
            drawn += [rows[picture, photographs].mean() for picture in pictures]
        means.append(np.mean(drawn))
    return np.array(means)


@pytest.mark.parametrize("within", [True, False])
def test_the_draws_are_those_of_loops_over_prompts_pictures_and_photographs(within):
    random = np.random.default_rng(0)
    values = [random.normal(prompt, 1, (count, 3)) for prompt, count in enumerate((2, 5, 3, 4))]
    estimate = bootstrap(values, 20_000, 0, within=within)
    assert estimate.mean == pytest.approx(np.concatenate(values).mean())
    expected = by_hand(values, 4000, random, within)
    assert estimate.draws.mean() == pytest.approx(expected.mean(), abs=4 * expected.std() / np.sqrt(4000))
    assert estimate.draws.std() == pytest.approx(expected.std(), rel=0.06)
    assert estimate.interval == pytest.approx(np.quantile(expected, [0.025, 0.975]), abs=0.1)


def test_intervals_cover_the_truth_about_as_often_as_they_say():
    """25 prompts of 4 seeds with effects of both. Nominal 95 %."""
    random = np.random.default_rng(1)
    hits = 0
    for _ in range(300):
        effects = random.normal(0, 1, (25, 1, 1))
        values = list(effects + random.normal(0, 1, (25, 4, 1)))
        low, high = bootstrap(values, 400, 0).interval
        hits += low <= 0 <= high
    assert 0.89 <= hits / 300 <= 0.99


def test_one_number_has_no_interval_and_the_same_seed_gives_the_same_one():
    assert bootstrap([np.ones((1, 1))], 100, 0).interval is None
    assert bootstrap([np.ones((4, 1))], 100, 0, within=False).interval is None
    assert bootstrap([np.ones((4, 1))], 100, 0).interval == (1, 1)
    values = [np.random.default_rng(2).normal(size=(3, 2)) for _ in range(3)]
    assert bootstrap(values, 100, 5).interval == bootstrap(values, 100, 5).interval
    assert bootstrap(values, 100, 5).interval != bootstrap(values, 100, 6).interval


def measured(tmp_path, method, values, subject="cat", seeds=4, order=None):
    """A run of prompts x seeds with these values (pictures, photographs) of DINO."""
    pictures = [
        Picture(f"{p}-{s}.png", p, f"prompt {p}", f"prompt {p}", s, tmp_path, f"{method} {p} {s}")
        for p in range(len(values) // seeds)
        for s in range(seeds)
    ]
    order = list(range(values.shape[1])) if order is None else order
    photographs = [Photograph(tmp_path / f"{n}.jpg", f"{subject} {n}") for n in order]
    found = Subject(tmp_path / method, tmp_path / method / "eval", method, subject, "sks", photographs, pictures)
    return Measured(found, {"dino": values[:, order]}, {}, {}, {})


def test_a_comparison_is_paired_by_prompt_and_seed_and_photograph(tmp_path):
    random = np.random.default_rng(3)
    base = random.normal(0, 1, (40, 3))
    better = base + random.normal(0.1, 0.01, (40, 3))
    runs = [measured(tmp_path, "lora", base), measured(tmp_path, "moslora", better, order=[2, 0, 1])]
    [row] = compare(runs, 500, 0)
    assert row["difference"] == pytest.approx((better - base).mean())
    assert row["interval"][0] == pytest.approx(0.1, abs=0.01)
    assert row["interval"][1] == pytest.approx(0.1, abs=0.01)
    assert (row["pairs"], row["prompts"]) == (40, 10)
    assert "higher on these prompts and seeds" in row["sentence"]
    assert row["sentence"].endswith(CAVEAT)
    assert "prompts, seeds, photographs" in row["interval_method"]


def test_no_difference_is_said_where_none_was_found(tmp_path):
    random = np.random.default_rng(4)
    runs = [measured(tmp_path, name, random.normal(0, 1, (40, 3))) for name in ("lora", "moslora")]
    [row] = compare(runs, 500, 0)
    assert row["interval"][0] < 0 < row["interval"][1]
    assert row["sentence"].endswith("no difference found.")
    [row] = compare([measured(tmp_path, name, np.ones((1, 1)), seeds=1) for name in ("lora", "moslora")], 500, 0)
    assert row["interval"] is None
    assert row["sentence"].endswith("this shows nothing.")


def test_only_pictures_that_both_runs_have_are_compared(tmp_path):
    values = np.arange(8.0)[:, None]
    [row] = compare([measured(tmp_path, "lora", values[:4]), measured(tmp_path, "moslora", values + 1)], 100, 0)
    assert (row["difference"], row["pairs"], row["prompts"]) == (1, 4, 1)


def test_runs_of_other_subjects_are_not_compared_and_methods_meet_in_the_mean_over_subjects(tmp_path):
    random = np.random.default_rng(5)
    values = {(method, subject): random.normal(0, 1, (40, 2)) for method in ("lora", "moslora") for subject in "ab"}
    rows = compare([measured(tmp_path, *key[:1], each, subject=key[1]) for key, each in values.items()], 300, 0)
    assert [row["subject"] for row in rows] == ["a", "b", "mean of 2 subjects"]
    each = [(values["moslora", subject] - values["lora", subject]).mean() for subject in "ab"]
    assert [row["difference"] for row in rows] == pytest.approx([*each, np.mean(each)])
    widths = [row["interval"][1] - row["interval"][0] for row in rows]
    assert widths[2] < max(widths[:2]), "two subjects know more than one"
    assert rows[2]["pairs"] == 80


def test_the_diversity_is_compared_pair_of_seeds_by_pair_of_seeds(tmp_path):
    runs = []
    for method, add in (("lora", 0.0), ("moslora", 0.25)):
        run = measured(tmp_path, method, np.ones((8, 1)))
        names = [picture.file for picture in run.subject.pictures]
        pairs = {(a, b): 0.1 * int(a[-5]) + add for a in names for b in names if a[0] == b[0] and a < b}
        runs.append(run._replace(values={}, distances=pairs))
    [row] = compare(runs, 100, 0)
    assert row["metric"] == "lpips"
    assert row["difference"] == pytest.approx(0.25)
    assert row["pairs"] == 12
    assert row["interval"] == pytest.approx([0.25, 0.25])
