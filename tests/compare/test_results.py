"""From finished cells to statistics.json: choice of the learning rate, pairing, sentences."""

import pytest

from moslora.compare.conclusions import conclude
from moslora.compare.results import Result, compute
from moslora.errors import RunError

FIVE = ("lora", "lora-scaled", "moslora-folded", "moslora-frozen", "moslora")


def result(method, seed, test, *, rate=1e-3, validation=0.5, share=1.0):
    """A cell whose two benchmarks lie 0.1 below and above `test`."""
    benchmarks = {"a": test - 0.1, "b": test + 0.1}
    return Result(method, rate, seed, share, 100, 2.0, None, benchmarks, validation)


def statistics(results, **facts):
    found = compute(results, "lora", ["a", "b"], True)
    return {**found, "base": None, "failed": [], **facts}


def arm(found, method, share=1.0):
    return next(row for row in found["arms"] if (row["method"], row["train_fraction"]) == (method, share))


def test_the_learning_rate_is_chosen_on_validation_and_never_on_the_test():
    results = [
        result("lora", seed, test, rate=rate, validation=validation)
        for seed in (0, 1)
        for rate, test, validation in ((1e-4, 0.9, 0.3), (3e-4, 0.6, 0.5), (1e-3, 0.8, 0.4))
    ]
    found = arm(statistics(results), "lora")
    assert found["learning_rate"] == 3e-4
    assert found["average"]["mean"] == pytest.approx(0.6)
    assert found["benchmarks"]["a"]["accuracies"] == pytest.approx([0.5, 0.5])
    assert [row["test"]["mean"] for row in statistics(results)["sweep"]] == pytest.approx([0.9, 0.6, 0.8])


def test_of_equal_rates_the_lowest_is_chosen():
    results = [result("lora", seed, 0.5, rate=rate) for rate in (1e-2, 1e-4, 1e-3) for seed in (0, 1)]
    assert arm(statistics(results), "lora")["learning_rate"] == 1e-4


def test_a_rate_at_which_a_seed_failed_is_not_chosen_while_another_has_all():
    results = [result("lora", seed, 0.5, rate=1e-4, validation=0.4) for seed in (0, 1)]
    results += [result("lora", 0, 0.6, rate=1e-2, validation=0.9)]
    assert arm(statistics(results), "lora")["learning_rate"] == 1e-4


def test_without_validation_one_rate_is_reported_and_two_are_an_error():
    assert arm(statistics([result("lora", 0, 0.5, validation=None)]), "lora")["validation"]["mean"] is None
    results = [result("lora", 0, 0.5, rate=rate, validation=None) for rate in (1e-4, 1e-3)]
    with pytest.raises(RunError, match="cannot be chosen"):
        statistics(results)


def test_a_validation_loss_takes_the_place_of_the_accuracy():
    results = [result("lora", 0, 0.5, rate=rate, validation=-loss) for rate, loss in ((1e-4, 2.0), (1e-3, 1.5))]
    found = compute(results, "lora", ["a", "b"], False)
    assert found["selection"] == "lowest mean validation loss"
    assert found["arms"][0]["learning_rate"] == 1e-3
    assert found["arms"][0]["validation"] == {"accuracies": [], "mean": None, "losses": [1.5], "mean_loss": 1.5}


def test_pairs_share_a_seed_and_every_share_of_the_data_has_its_own_baseline():
    results = [result("lora", seed, 0.5 + seed / 100) for seed in (0, 1, 2)]
    results += [result("moslora", seed, 0.52 + seed / 50) for seed in (1, 2, 5)]
    results += [result("lora", 0, 0.3, share=0.5), result("moslora", 0, 0.4, share=0.5)]
    found = statistics(results)
    full = arm(found, "moslora")["against_baseline"]
    assert full["pairs"] == 2
    assert full["difference"] == pytest.approx(((0.54 - 0.51) + (0.56 - 0.52)) / 2)
    half = arm(found, "moslora", 0.5)["against_baseline"]
    assert (half["pairs"], half["difference"], half["p"]) == (1, pytest.approx(0.1), None)
    assert arm(found, "lora")["against_baseline"] is None


def test_holm_counts_the_arms_of_one_share():
    results = [result("lora", seed, 0.5) for seed in range(4)]
    for method, gain in (("moslora", 0.03), ("dora", 0.001)):
        results += [result(method, seed, 0.5 + gain + noise) for seed, noise in enumerate((0.004, -0.003, 0.002, 0))]
    found = statistics(results)
    p = {row["method"]: row["against_baseline"] for row in found["arms"][1:]}
    assert p["moslora"]["p_holm"] == pytest.approx(2 * p["moslora"]["p"])
    assert p["dora"]["p_holm"] == pytest.approx(p["dora"]["p"])
    sentences = " ".join(conclude(found))
    assert "moslora was better than lora: +3.1 points, 95 % interval 2.6 to 3.6, p" in sentences
    assert "after Holm's correction for 2 tests, 4 paired seeds." in sentences
    assert "No difference was found between dora and lora: +0.2 points, 95 % interval -0.3 to 0.7, p" in sentences
    assert f"{p['dora']['seeds_needed']} seeds would be needed" in sentences


def test_one_seed_gives_no_conclusion():
    sentence, limit = conclude(statistics([result("lora", 0, 0.5), result("moslora", 0, 0.6)]))
    assert limit.startswith("All methods ran at one learning rate only")
    assert sentence == (
        "moslora differed from lora by +10.0 points in the one seed they share: a single pair gives no interval and no "
        "p value, so nothing can be concluded."
    )


def test_a_best_rate_at_the_end_of_the_sweep_and_a_single_rate_are_pointed_out():
    results = [result("lora", 0, 0.5, rate=rate, validation=rate) for rate in (1e-4, 1e-3)]
    results += [
        result("moslora", 0, 0.5, rate=rate, validation=0.1 if rate == 3e-4 else 0) for rate in (1e-4, 3e-4, 1e-3)
    ]
    results += [result("dora", 0, 0.5)]
    sentences = conclude(statistics(results, failed=[{"cell": "x", "error": "y"}]))
    assert "The best learning rate of lora, 0.001, is the largest tried: widen the sweep." in sentences
    assert not any("of moslora" in sentence for sentence in sentences)
    assert any(sentence.startswith("dora ran at one learning rate only") for sentence in sentences)
    assert sentences[-1] == "1 cell failed and is left out."


def _five_arms(means):
    noise = (0.004, -0.003, 0.002, -0.002, 0.001)
    return [
        result(method, seed, mean + noise[(seed + place) % 5] / 2)
        for place, (method, mean) in enumerate(means.items())
        for seed in range(5)
    ]


@pytest.mark.parametrize(
    ("means", "said", "unsaid"),
    [
        (
            dict(zip(FIVE, (0.5, 0.5, 0.5, 0.5, 0.55), strict=True)),
            ["here the initialisation alone does not explain moslora's result."],
            ["no gain", "do not show"],
        ),
        (
            dict(zip(FIVE, (0.5, 0.55, 0.55, 0.55, 0.55), strict=True)),
            ["moslora was better than lora", "do not show that learning the mixer adds anything", "do not prove"],
            ["no gain", "alone does not explain"],
        ),
        (
            dict(zip(FIVE, (0.5, 0.5, 0.5, 0.5, 0.5), strict=True)),
            ["there is no gain of moslora over lora here", "do not prove that it adds nothing"],
            ["alone does not explain"],
        ),
        (
            dict(zip(FIVE, (0.5, 0.5, 0.55, 0.55, 0.5), strict=True)),
            ["moslora was worse than moslora-folded and moslora-frozen."],
            ["alone does not explain"],
        ),
        (
            dict(zip(FIVE, (0.5, 0.5, 0.5, 0.55, 0.55), strict=True)),
            ["that the learning of the mixer matters is not shown", "Where no difference was found (moslora-frozen)"],
            ["alone does not explain"],
        ),
    ],
)
def test_whether_it_is_only_the_initialisation(means, said, unsaid):
    (entry,) = statistics(_five_arms(means))["initialisation"]
    assert [each["against"] for each in entry["comparisons"]] == ["moslora-folded", "moslora-frozen", "lora-scaled"]
    assert all(text in entry["conclusion"] for text in said), entry["conclusion"]
    assert not any(text in entry["conclusion"] for text in unsaid), entry["conclusion"]


def test_the_question_of_the_initialisation_needs_all_five_arms_and_more_than_one_seed():
    cells = _five_arms(dict.fromkeys(FIVE, 0.5))
    assert statistics([each for each in cells if each.method != "moslora-frozen"])["initialisation"] == []
    (entry,) = statistics([each for each in cells if each.seed == 0])["initialisation"]
    assert entry["conclusion"].endswith("With so few pairs the question stays open.")
