"""Figures of a study's statistics: arms against the baseline, against data, parameters and learning rate."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from .canvas import WIDTH, canvas, drawing, label_at_the_right, panels, shortened
from .colours import look
from .texts import fraction, rate

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Arm = Mapping[str, Any]  # an entry of statistics.json's "arms"


def arms_figure(arms: Sequence[Arm], baseline: str) -> "Figure":
    """Average accuracy of every arm, best first, and its difference to the baseline.

    Args:
        arms: of one share of the training data.
        baseline: the method whose mean is the dashed line.
    """
    ordered = sorted(arms, key=lambda arm: arm["average"]["mean"])
    with drawing():
        figure, [[left, right]] = canvas(WIDTH, 0.26 * len(arms) + 1.1, 1, 2, sharey=True)
        for place, arm in enumerate(ordered):
            colour, marker = look(arm["method"])
            average, against = arm["average"], arm["against_baseline"]
            seeds = [100 * accuracy for accuracy in average["accuracies"]]
            left.plot(seeds, [place - 0.25] * len(seeds), ".", color=colour, alpha=0.6, markersize=4)
            _point(left, average["mean"], average["interval"], place, colour, marker)
            if against:
                _point(right, against["difference"], against["interval"], place, colour, marker)
        for arm in arms:
            if arm["method"] == baseline:
                left.axvline(100 * arm["average"]["mean"], color=look(baseline).colour, linewidth=1, linestyle="--")
        right.axvline(0, color=look(baseline).colour, linewidth=1, linestyle="--")
        left.set_yticks(range(len(ordered)), [shortened(arm["method"]) for arm in ordered])
        left.set_ylim(-0.6, len(ordered) - 0.4)
        left.set_xlabel("average accuracy (%)")
        right.set_xlabel(f"minus {baseline} (points)")
        for axes in (left, right):
            axes.grid(axis="x", alpha=0.25)
    return figure


def _point(axes: Any, centre: float, interval: Sequence[float] | None, place: float, colour: str, marker: str) -> None:
    error = None if interval is None else [[100 * (centre - interval[0])], [100 * (interval[1] - centre)]]
    style: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 5, "capsize": 2.5, "elinewidth": 1.4}
    axes.errorbar([100 * centre], [place], xerr=error, **style)


def fractions_figure(arms: Sequence[Arm]) -> "Figure":
    """Average accuracy over the share of the training data, as in the paper's Figure 4; every seed a dot."""
    methods = list(dict.fromkeys(arm["method"] for arm in arms))
    with drawing():
        figure, [[axes]] = canvas(WIDTH, max(3.2, 0.2 * len(methods) + 1.2))
        labels = []
        for method in methods:
            colour, marker = look(method)
            own = sorted((arm for arm in arms if arm["method"] == method), key=lambda arm: arm["train_fraction"])
            places = [100 * arm["train_fraction"] for arm in own]
            means = [100 * arm["average"]["mean"] for arm in own]
            for place, arm in zip(places, own, strict=True):
                seeds = [100 * accuracy for accuracy in arm["average"]["accuracies"]]
                axes.plot([place] * len(seeds), seeds, ".", color=colour, alpha=0.4, markersize=4)
            axes.plot(places, means, color=colour, marker=marker, markersize=5)
            labels.append((method, places[-1], means[-1], colour))
        shares = sorted({arm["train_fraction"] for arm in arms})
        axes.set_xticks([100 * share for share in shares], [fraction(share) for share in shares])
        axes.set(xlabel="share of the training data", ylabel="average accuracy (%)")
        label_at_the_right(axes, labels)
    return figure


def parameters_figure(arms: Sequence[Arm]) -> "Figure":
    """Average accuracy over the number of trained parameters."""
    from matplotlib.ticker import LogLocator, NullFormatter

    with drawing():
        figure, [[axes]] = canvas(WIDTH, max(3.2, 0.2 * len(arms) + 0.9))
        labels = []
        for arm in arms:
            colour, marker = look(arm["method"])
            mean = 100 * arm["average"]["mean"]
            axes.plot([arm["parameters"]], [mean], color=colour, marker=marker, markersize=5)
            labels.append((arm["method"], arm["parameters"], mean, colour))
        axes.set_xscale("log")
        counts = [arm["parameters"] for arm in arms]
        axes.set_xlim(min(counts) / 1.6, max(counts) * 1.6)
        axes.xaxis.set_major_locator(LogLocator(subs=(1,) if max(counts) > 30 * min(counts) else (1, 2, 5)))
        axes.xaxis.set_major_formatter(_short)
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set(xlabel="trained parameters (logarithmic)", ylabel="average accuracy (%)")
        label_at_the_right(axes, labels)
    return figure


def _short(number: float, _: float = 0) -> str:
    for unit, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:g}{letter}"
    return f"{number:g}"


def rates_figure(sweep: Sequence[Mapping[str, Any]], chosen: Mapping[str, float]) -> "Figure":
    """Average accuracy over the learning rate, a panel a method: every seed a dot, the mean a line.

    Args:
        sweep: entries of statistics.json's "sweep", of one share of the training data.
        chosen: method -> the learning rate that was chosen on validation.
    """
    methods = list(dict.fromkeys(entry["method"] for entry in sweep))
    with drawing():
        figure, axes = panels(len(methods), sharex=True, sharey=True)
        rates = sorted({entry["learning_rate"] for entry in sweep})
        for place, method in zip(axes, methods, strict=True):
            own = sorted((each for each in sweep if each["method"] == method), key=lambda each: each["learning_rate"])
            for kind in ("validation", "test"):
                _rate_line(place, own, kind)
            if method in chosen:
                place.axvline(chosen[method], color="black", linewidth=0.8, linestyle=":")
            place.set_title(shortened(method, 20), loc="left")
            place.set_xscale("log")
            place.set_xticks(rates, [rate(value) for value in rates])
            place.set_xticks([], minor=True)
        figure.supxlabel("learning rate", fontsize=9)
        figure.supylabel("average accuracy (%)", fontsize=9)
    return figure


def _rate_line(axes: Any, entries: Sequence[Mapping[str, Any]], kind: str) -> None:
    entries = [entry for entry in entries if entry.get(kind) and entry[kind]["mean"] is not None]
    if not entries:
        return
    colour = look(entries[0]["method"]).colour
    style, fill, aside = ("--", "none", 0.9) if kind == "validation" else ("-", "full", 1.1)
    dots: dict[str, Any] = {"markersize": 3, "markeredgewidth": 0.6, "alpha": 0.75, "fillstyle": fill}
    for entry in entries:
        seeds = [100 * accuracy for accuracy in entry[kind]["accuracies"] if accuracy is not None]
        axes.plot([aside * entry["learning_rate"]] * len(seeds), seeds, "o", color=colour, **dots)
    rates, means = zip(*((entry["learning_rate"], 100 * entry[kind]["mean"]) for entry in entries), strict=True)
    axes.plot(rates, means, color=colour, linestyle=style, linewidth=1.5)
