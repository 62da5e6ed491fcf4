"""The committed study: its statistics follow from its accuracies, and the pages say what it found."""

import math

import pytest

from moslora import runs
from moslora.compare.statistics import compare_pairs, holm, mean_interval
from tests.helpers import ROOT

STUDY = ROOT / "docs" / "study"
STATISTICS = runs.read_json(STUDY / "statistics.json")
ARMS = {arm["method"]: arm for arm in STATISTICS["arms"]}


@pytest.mark.parametrize("method", ARMS)
def test_means_and_intervals_follow_from_the_accuracies(method):
    arm = ARMS[method]
    mean, interval = mean_interval(arm["average"]["accuracies"])
    assert math.isclose(mean, arm["average"]["mean"])
    assert interval == pytest.approx(arm["average"]["interval"])
    by_seed = zip(*(each["accuracies"] for each in arm["benchmarks"].values()), strict=True)
    assert [math.fsum(row) / len(row) for row in by_seed] == pytest.approx(arm["average"]["accuracies"])


def test_differences_and_corrected_p_values_follow_from_the_accuracies():
    paired = {
        method: dict(zip(arm["seeds"], arm["average"]["accuracies"], strict=True)) for method, arm in ARMS.items()
    }
    others = [method for method in ARMS if method != STATISTICS["baseline"]]
    found = [compare_pairs(paired[method], paired[STATISTICS["baseline"]]) for method in others]
    for method, difference, p in zip(others, found, holm([each.p for each in found]), strict=True):
        stored = ARMS[method]["against_baseline"]
        assert stored["difference"] == pytest.approx(difference.difference)
        assert stored["interval"] == pytest.approx(difference.interval)
        assert stored["p_holm"] == pytest.approx(p)
        assert stored["seeds_needed"] == difference.seeds_needed


@pytest.mark.parametrize("page", [ROOT / "README.md", STUDY / "README.md"], ids=["README.md", "docs/study/README.md"])
def test_the_pages_say_what_was_found(page):
    found = ARMS["moslora"]["against_baseline"]
    low, high = (100 * end for end in found["interval"])
    text = " ".join(page.read_text(encoding="utf-8").split())
    assert f"{100 * found['difference']:+.1f} points" in text
    assert f"{low:.1f} to {high:.1f}" in text
    assert found["p_holm"] > 0.05
    assert "no difference was found between moslora and lora" in text.lower()
