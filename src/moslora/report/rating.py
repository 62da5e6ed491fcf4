"""The report of a rating study: the paper's Table 6 from votes, with a figure, tests, agreement and attention."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .canvas import WIDTH, canvas, drawing, shortened
from .colours import BLUE, RED, look
from .page import Cell, Page, Picture, Section, Table, write_page
from .texts import MISSING, p_value, percent, percent_interval, points, points_interval

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Table 6 of the paper as printed, in percent: MoSLoRA against LoRA, SDXL, 4 subjects, 8 prompts, 15 raters.
PAPER = "paper, SDXL, MoSLoRA against LoRA"
PUBLISHED = {
    "subject": {"win": 23.1, "tie": 60.4, "loss": 16.5, "delta": 6.6},
    "prompt": {"win": 45.1, "tie": 44.2, "loss": 10.7, "delta": 34.3},
}
SHARES = ("win", "tie", "loss", "delta")
TIE, INK = "#d9d7d2", "#1c1e21"

Scores = Mapping[str, Any]  # what `score_study` returns


def write_rating_report(scores: Scores, votes: Sequence[Mapping[str, Any]], out: Path) -> Path:
    """Write or redraw the report.

    Args:
        scores: results of a study.
        votes: one row a vote, for votes.csv.
        out: folder; made if missing.

    Returns:
        the HTML page.

    Raises:
        RunError: `out` holds a file of that name which no report has written.
    """
    return write_page(_page(scores, votes), out)


def _page(scores: Scores, votes: Sequence[Mapping[str, Any]]) -> Page:
    a, b = scores["a"], scores["b"]
    table = scores["table"]
    picture = Picture(
        "table6",
        bars_figure(table, a, b, published=(a, b) == ("lora", "moslora")),
        f"Stacked bars: how often {b} was better, neither, and {a} was better",
        f"Share of votes, and the difference {b} minus {a} in percentage points with its 95 % interval.",
    )
    sections = [
        Section("Result", [sentences(scores), picture, score_table(table, a, b, "All votes.")]),
        Section("Tests", [_tests_text(), _tests(scores["tests"], b)]),
        Section("Raters", _raters(scores)),
        Section("Published numbers", [_published(table)]),
        Section("How it was computed", _method(scores)),
    ]
    careful = scores["careful_table"]
    if careful:
        caption = f"Without raters who failed {scores['max_failures'] + 1} or more attention checks."
        sections.insert(1, Section("Careful raters only", [score_table(careful, a, b, caption)]))
    facts = [
        f"{b} (B) against {a} (A)",
        f"{scores['pairs']} pairs, {scores['subjects']} subjects",
        f"{scores['raters']} raters, {scores['finished']} of them finished",
        f"{scores['votes']} votes",
    ]
    data = {"table": _table_rows(table), "tests": scores["tests"], "votes": votes, "raters": _rater_rows(scores)}
    return Page(f"Rating study: {scores['title']}", facts, sections, data)


def sentences(scores: Scores) -> list[str]:
    """What was found and what was not, a sentence for each question."""
    found = []
    for row in _overall(scores["table"]):
        interval = (row["intervals"] or {}).get("delta")
        text = (
            f"{row['metric'].capitalize()}: {scores['b']} was better in {percent(row['win'])} % of the votes, "
            f"{scores['a']} in {percent(row['loss'])} %, neither in {percent(row['tie'])} %. "
            f"The difference is {points(row['delta'])} points"
        )
        if interval is None:
            text += "; one rater or one prompt gives no interval."
        elif interval[0] <= 0 <= interval[1]:
            text += f" (95 % interval {points_interval(interval)}), which can be chance: no difference was found."
        else:
            better = scores["b"] if row["delta"] > 0 else scores["a"]
            text += f" (95 % interval {points_interval(interval)}): raters prefer {better}."
        found.append(text)
    if scores["finished"] < scores["invited"]:
        found.append(
            f"{scores['invited'] - scores['finished']} of {scores['invited']} raters have not finished: "
            "if more votes come, these numbers will change."
        )
    return found


def score_table(rows: Sequence[Mapping[str, Any]], a: str, b: str, caption: str) -> Table:
    """Win, tie and loss of B against A in the form of the paper's Table 6.

    Args:
        rows: of the results.
        a: name of the baseline.
        b: name of what is held against it.
        caption: begins the words above the table.
    """
    header = ("metric", "subject", f"win: {b} better", "tie", f"loss: {a} better", "Δ = win − loss", "votes")  # noqa: RUF001
    lines = []
    for row in rows:
        intervals = row["intervals"] or {}
        cells = [
            Cell(percent(row[share]), row[share], percent_interval(intervals.get(share)))
            for share in ("win", "tie", "loss")
        ]
        interval = intervals.get("delta")
        strong = interval is not None and not interval[0] <= 0 <= interval[1]
        delta = Cell(points(row["delta"]), row["delta"], points_interval(interval), strong)
        lines.append([Cell(row["metric"]), Cell(row["subject"]), *cells, delta, Cell(str(row["votes"]), row["votes"])])
    words = f"{caption} Percent of votes, Δ in percentage points; 95 % intervals below. Bold: interval without 0."
    return Table(words, header, lines)


def bars_figure(rows: Sequence[Mapping[str, Any]], a: str, b: str, published: bool = False) -> "Figure":
    """Stacked bars of win, tie and loss, a panel a question; the difference and its interval at the right.

    Args:
        rows: of the results.
        a: name of the baseline, at the right end of the bars.
        b: name of what is held against it, at the left end.
        published: draw the paper's Table 6 below, fainter.
    """
    from matplotlib.patches import Patch

    colours = {"win": look(b).colour, "tie": TIE, "loss": look(a).colour}
    if colours["win"] == colours["loss"]:
        colours |= {"win": RED, "loss": BLUE}
    metrics = list(dict.fromkeys(row["question"] for row in rows))
    bars = max(sum(row["question"] == metric for row in rows) for metric in metrics) + published
    with drawing():
        figure, grid = canvas(WIDTH, len(metrics) * (0.33 * bars + 0.42) + 0.75, len(metrics), 1, sharex=True)
        for (axes,), metric in zip(grid, metrics, strict=True):
            own = [row for row in rows if row["question"] == metric]
            _panel(axes, own, PUBLISHED[metric] if published else None, colours)
        grid[-1][0].set_xlabel("share of votes (%)")
        # Small text is wider at some resolutions than at the one of the layout.
        figure.get_layout_engine().set(rect=(0, 0, 0.975, 1))  # type: ignore[union-attr, call-arg]
        names = {"win": f"{shortened(b)} better", "tie": "tie", "loss": f"{shortened(a)} better"}
        handles = [Patch(facecolor=colours[share], label=name) for share, name in names.items()]
        figure.legend(handles=handles, frameon=False, loc="outside upper left", ncols=3)
    return figure


def _panel(
    axes: Any, rows: Sequence[Mapping[str, Any]], printed: Mapping[str, float] | None, colours: Mapping[str, str]
) -> None:
    """The bars of one question, and at the right their differences with intervals."""
    lines = [(row["subject"], row, (row["intervals"] or {}).get("delta")) for row in rows]
    if printed:
        lines.append(("paper (SDXL)", {share: value / 100 for share, value in printed.items()}, None))
    for place, (_, values, _) in enumerate(lines):
        _bar(axes, place, values, colours, faint=printed is not None and place == len(lines) - 1)
    words = [
        points(values["delta"]) + (f"\n{points_interval(interval)}" if interval else "")
        for _, values, interval in lines
    ]
    right = axes.twinx()
    right.set_yticks(range(len(lines)), words, fontsize=7.5, linespacing=1.1)
    axes.set_yticks(range(len(lines)), [shortened(label) for label, _, _ in lines])
    axes.set_title(rows[0]["metric"], loc="left", fontweight="bold")
    axes.set_xlim(0, 100)
    axes.grid(False)
    for side in (axes, right):
        side.set_ylim(len(lines) - 0.5, -0.5)
        side.tick_params(axis="y", length=0)
        side.spines[["left", "right", "top"]].set_visible(False)


def _bar(axes: Any, place: int, values: Mapping[str, float], colours: Mapping[str, str], faint: bool) -> None:
    """One stacked bar with its numbers."""
    left = 0.0
    for share in ("win", "tie", "loss"):
        width = 100 * values[share]
        style: dict[str, Any] = {"edgecolor": "white", "linewidth": 0.8, "alpha": 0.45 if faint else 1}
        axes.barh(place, width, left=left, height=0.68, color=colours[share], **style)
        if width >= 7:
            ink = INK if faint or share == "tie" else "white"
            axes.text(left + width / 2, place, percent(values[share]), ha="center", va="center", fontsize=8, color=ink)
        left += width


def _overall(table: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The row of each question that covers everything: its first."""
    first: dict[str, Mapping[str, Any]] = {}
    for row in table:
        first.setdefault(row["question"], row)
    return list(first.values())


def _tests_text() -> str:
    return (
        "Sign tests, exact and two-sided; ties are left out. The test over votes takes every vote for independent, "
        "which votes of one rater, or about one prompt, are not: its p is too small. The tests over prompts and over "
        "raters count each prompt or rater once, by the sign of its wins minus its losses. No correction is made for "
        "asking two questions."
    )


def _tests(rows: Sequence[Mapping[str, Any]], b: str) -> Table:
    lines = [
        [
            Cell(row["metric"]),
            Cell(row["unit"]),
            Cell(str(row["wins"]), row["wins"]),
            Cell(str(row["losses"]), row["losses"]),
            Cell(p_value(row["p"]), row["p"]),
        ]
        for row in rows
    ]
    return Table(f"Units that favour {b} (wins) or not (losses).", ("metric", "unit", "wins", "losses", "p"), lines)


def _raters(scores: Scores) -> list[str | list[str] | Table | Picture | Any]:
    sides, limit = scores["sides"], scores["max_failures"] + 1
    careless = sum(row["careless"] for row in scores["attention"])
    agreement = [
        [
            Cell(row["metric"]),
            Cell(_alpha(row["ordinal"]), row["ordinal"]),
            Cell(_alpha(row["nominal"]), row["nominal"]),
        ]
        for row in scores["agreement"]
    ]
    words = (
        f"Side: {sides['left']} answers for the left picture, {sides['right']} for the right, {sides['tie']} ties. "
        f"{sides['raters_left']} raters prefer the left side, {sides['raters_right']} the right "
        f"(sign test over raters: p = {p_value(sides['p'])}). Each method was on the left in half of a rater's pairs, "
        "so a liking for one side favours neither."
    )
    header = (
        "rater",
        "checks",
        "picture beside itself: failed",
        "photograph beside noise: failed",
        "left",
        "tie",
        "right",
    )
    counts = {row["rater"]: row for row in sides["by_rater"]}
    lines = []
    for row in scores["attention"]:
        numbers = [row["checks"], row["same_failed"], row["noise_failed"]]
        numbers += [counts.get(row["rater"], {}).get(side, 0) for side in ("left", "tie", "right")]
        name = f"{row['rater']} (careless)" if row["careless"] else str(row["rater"])
        lines.append([Cell(name), *(Cell(str(number), number) for number in numbers)])
    return [
        Table(
            "Krippendorff's alpha over the pairs: 1 is perfect agreement, 0 what chance would give.",
            ("metric", "ordinal (loss, tie, win)", "nominal"),
            agreement,
        ),
        words,
        f"{careless} of {len(scores['attention'])} raters failed {limit} or more attention checks. "
        "The results above hold the votes of all; where somebody failed, they are given without those raters as well.",
        Table("Attention checks and answers by side.", header, lines),
    ]


def _published(table: Sequence[Mapping[str, Any]]) -> Table:
    lines = []
    for row in _overall(table):
        printed = PUBLISHED[row["question"]]
        theirs = [Cell(points(value / 100) if name == "delta" else f"{value:.1f}") for name, value in printed.items()]
        ours = [Cell(points(row[share]) if share == "delta" else percent(row[share]), row[share]) for share in SHARES]
        lines += [[Cell(f"{row['metric']}: {PAPER}"), *theirs], [Cell(f"{row['metric']}: this study"), *ours]]
    caption = (
        f"Table 6 of the paper (arXiv:2406.11909) beside this study. Lines marked “{PAPER}” were copied from it: other "
        "pictures and other raters, so only the form can be compared. The paper gives no intervals, and pools "
        "its votes as is done here."
    )
    return Table(caption, ("", "win", "tie", "loss", "Δ"), lines)


def _method(scores: Scores) -> list[Any]:
    return [
        f"A win is a vote for {scores['b']}, a loss one for {scores['a']}. Every vote weighs the same.",
        scores["interval_method"],
        "Intervals and tests speak of other raters and other prompts for these subjects, not of other subjects, and of "
        "these trained adapters, not of training them again.",
    ]


def _table_rows(table: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Rows of table.csv: shares in [0, 1]."""
    rows = []
    for row in table:
        flat = {key: value for key, value in row.items() if key != "intervals"}
        for share in SHARES:
            low, high = (row["intervals"] or {}).get(share, (None, None))
            flat |= {f"{share}_low": low, f"{share}_high": high}
        rows.append(flat)
    return rows


def _rater_rows(scores: Scores) -> list[dict[str, Any]]:
    counts = {row["rater"]: row for row in scores["sides"]["by_rater"]}
    empty = {"left": 0, "tie": 0, "right": 0, "p": None}
    rows = []
    for row in scores["attention"]:
        side = counts.get(row["rater"], empty)
        rows.append({**row, **{key: side[key] for key in ("left", "tie", "right")}, "side_p": side["p"]})
    return rows


def _alpha(value: float | None) -> str:
    return MISSING if value is None else f"{value:.3f}".replace("-", "−")  # noqa: RUF001
