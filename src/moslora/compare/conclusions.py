"""What statistics.json means, in plain sentences. A null result is called one, with its interval."""

from collections.abc import Mapping, Sequence
from typing import Any

from .statistics import SIGNIFICANCE


def conclude(statistics: Mapping[str, Any]) -> list[str]:
    """Sentences about every arm against the baseline, about the initialisation, and about the limits of the study."""
    sentences = []
    shares = sorted({arm["train_fraction"] for arm in statistics["arms"]}, reverse=True)
    for share in shares:
        arms = [arm for arm in statistics["arms"] if arm["train_fraction"] == share]
        tests = sum(bool(arm["against_baseline"] and arm["against_baseline"]["p"] is not None) for arm in arms)
        for arm in arms:
            if arm["method"] != statistics["baseline"]:
                where = _where(share, shares)
                sentences.append(
                    where
                    + compare_sentence(
                        arm["method"], statistics["baseline"], arm["against_baseline"], tests, bool(where)
                    )
                )
    for entry in statistics["initialisation"]:
        sentences.append(_where(entry["train_fraction"], shares) + entry["conclusion"])
    sentences += _edges(statistics)
    if statistics["failed"]:
        count = len(statistics["failed"])
        sentences.append(f"{_count(count, 'cell')} failed and {'is' if count == 1 else 'are'} left out.")
    return sentences


def compare_sentence(
    ours: str, theirs: str, compared: Mapping[str, Any] | None, tests: int = 1, inner: bool = False
) -> str:
    """One comparison.

    Args:
        ours: a method.
        theirs: the method it is compared with.
        compared: an `against_baseline` of statistics.json.
        tests: p values that were corrected together.
        inner: the sentence has begun, so that no capital letter is due.
    """
    if compared is None:
        return f"{ours} cannot be compared with {theirs}: they have no seed in common."
    found = points(compared["difference"])
    if compared["interval"] is None:
        return (
            f"{ours} differed from {theirs} by {found} in the one seed they share: a single pair gives no interval and "
            "no p value, so nothing can be concluded."
        )
    pairs, interval = f"{compared['pairs']} paired seeds", interval_text(compared["interval"])
    if compared["p"] is None:
        return (
            f"{ours} differed from {theirs} by the same {found} in each of {pairs}: without variance between them "
            "there is no interval and no p value to rely on."
        )
    if compared["p_holm"] < SIGNIFICANCE:
        better = "better" if compared["difference"] > 0 else "worse"
        return f"{ours} was {better} than {theirs}: {found}, {interval}, {_p(compared['p_holm'], tests)}, {pairs}."
    sentence = f"{'no' if inner else 'No'} difference was found between {ours} and {theirs}: {found}, {interval}"
    sentence += f", {_p(compared['p_holm'], tests)}, {pairs}"
    needed = compared["seeds_needed"]
    if needed is None:
        return f"{sentence}."
    return f"{sentence}; {needed:,} seeds would be needed to find an effect of this size in 80 % of studies."


def initialisation_sentence(entry: Mapping[str, Any]) -> str:
    """What the arms that share moslora's start say about why it differs from lora, and what they leave open.

    Args:
        entry: one of `initialisation` of statistics.json.
    """
    against = {each["against"]: each for each in entry["comparisons"]}
    tests = sum(each["p"] is not None for each in entry["comparisons"])
    parts = [
        "Is it only the initialisation?",
        compare_sentence("moslora", "lora", entry["moslora_against_lora"]),
        *(compare_sentence("moslora", method, each, tests) for method, each in against.items()),
    ]
    gained = _verdict(entry["moslora_against_lora"])
    if gained is None or any(_verdict(each) is None for each in against.values()) or not against:
        return " ".join([*parts, "With so few pairs the question stays open."])
    better = [method for method, each in against.items() if _verdict(each) == "better"]
    equal = [method for method, each in against.items() if _verdict(each) == "null"]
    worse = [method for method, each in against.items() if _verdict(each) == "worse"]
    if gained != "better":
        parts.append("So there is no gain of moslora over lora here that an initialisation would have to explain.")
    if "moslora-folded" in better and "moslora-frozen" in better:
        parts.append(
            "A mixer that learns did better than the same start with the mixer folded into A or frozen, so here the "
            "initialisation alone does not explain moslora's result."
        )
    elif better:
        parts.append(
            f"moslora was found better than {_and(better)}, but not than both moslora-folded and moslora-frozen: that "
            "the learning of the mixer matters is not shown."
        )
    if equal:
        limit = max(against[method]["interval"][1] for method in equal)
        parts.append(
            f"Where no difference was found ({_and(equal)}), the data do not show that learning the mixer adds "
            f"anything to the start; they do not prove that it adds nothing either: gains up to {points(limit)} lie "
            "within the intervals."
        )
    if worse:
        parts.append(f"moslora was worse than {_and(worse)}.")
    return " ".join(parts)


def points(value: float) -> str:
    """A difference of accuracies in [0, 1] as percentage points, with its sign."""
    return f"{100 * value:+.1f} points"


def interval_text(interval: Sequence[float]) -> str:
    """An interval of such differences."""
    low, high = interval
    return f"95 % interval {100 * low:.1f} to {100 * high:.1f}"


def _verdict(compared: Mapping[str, Any] | None) -> str | None:
    """better, worse, null; None where there is no test."""
    if compared is None or compared["p_holm"] is None:
        return None
    if compared["p_holm"] >= SIGNIFICANCE:
        return "null"
    return "better" if compared["difference"] > 0 else "worse"


def _edges(statistics: Mapping[str, Any]) -> list[str]:
    """Sentences about learning rates that were not swept widely enough."""
    sentences, single = [], []
    shares = {arm["train_fraction"] for arm in statistics["arms"]}
    for arm in statistics["arms"]:
        rates = [
            row["learning_rate"]
            for row in statistics["sweep"]
            if (row["method"], row["train_fraction"]) == (arm["method"], arm["train_fraction"])
        ]
        if len(rates) == 1:
            single.append(arm["method"])
            continue
        for end, name in ((max(rates), "largest"), (min(rates), "smallest")):
            if arm["learning_rate"] == end:
                share = f" at {arm['train_fraction']:.4g} of the data" if len(shares) > 1 else ""
                sentences.append(
                    f"The best learning rate of {arm['method']}{share}, {end:g}, is the {name} tried: widen the sweep."
                )
    if single:
        every = len(single) == len(statistics["arms"]) > 1
        names = "All methods" if every else _and(list(dict.fromkeys(single)))
        sentences.append(
            f"{names} ran at one learning rate only: a difference between methods may be one between how well that "
            "rate suits them."
        )
    return sentences


def _where(share: float, shares: Sequence[float]) -> str:
    return f"With {share:.4g} of the data: " if len(shares) > 1 else ""


def _p(value: float, tests: int) -> str:
    text = "p < 0.001" if value < 0.001 else f"p = {value:.3f}"
    return text if tests < 2 else f"{text} after Holm's correction for {tests} tests"


def _and(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
