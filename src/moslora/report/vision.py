"""Vision-language runs: the paper's Table 5 with its own rows below, the abilities of Figure 5, and what was lost."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from .. import runs
from .colours import look
from .figures import accuracies_figure
from .page import Cell, Picture, Section, Table
from .published import read_published
from .radar import Axes, radar_figure
from .summary import Summary
from .texts import MISSING, count, percent, percent_interval

TASK = "vision-language"  # as scores.json names it
BASE = "base model"
MOST_SCORES = 40  # runs times benchmarks in one figure
_LANGUAGES = {"MMBench EN": "English", "MMBench CN": "Chinese"}  # columns that have the abilities of Figure 5


class Scored(NamedTuple):
    """One evaluation: of a run, or of the base model it started from."""

    label: str
    scores: dict[str, Any]  # content of scores.json

    def benchmark(self, column: str) -> dict[str, Any]:
        """Scores of the benchmark that fills a column of Table 5; empty if none does."""
        return self.scores["benchmarks"].get(self.scores["columns"].get(column), {})


def read_scored(folders: Mapping[str, Path]) -> list[Scored]:
    """The vision-language evaluations of runs, by label; first the base model, if the first run has measured it."""
    places = {label: folder / "eval" / "scores.json" for label, folder in folders.items()}
    first = next(iter(folders.values()))
    places = {BASE: first / "eval-base" / "scores.json", **places}
    found = {label: runs.read_json(path) for label, path in places.items() if path.exists()}
    return [Scored(label, scores) for label, scores in found.items() if scores.get("task") == TASK]


def vision_sections(folders: Mapping[str, Path]) -> list[Section]:
    """What vision-language runs reach; nothing if none of the runs is one that was evaluated."""
    scored = read_scored(folders)
    if not scored:
        return []
    sections = []
    if any(each.scores["columns"] for each in scored):
        sections.append(Section("Nine benchmarks", [_table_5(scored), *_radar_of_columns(scored)]))
    abilities: list[Any] = [*_radar_of_abilities(scored), *_abilities(scored)]
    if abilities:
        sections.append(Section("Abilities", abilities))
    return [*sections, Section("Every benchmark", [_everything(scored), *_dots(scored), *_mme(scored)])]


def vision_rows(folders: Mapping[str, Path]) -> dict[str, list[dict[str, Any]]]:
    """CSV files: `scores`, one row a run and benchmark, and `parts`, one row a run, benchmark and part."""
    scores, parts = [], []
    for label, content in read_scored(folders):
        for name, each in content["benchmarks"].items():
            low, high = each["interval"] or (None, None)
            row = {"run": label, "benchmark": name}
            kept = ("chance", "questions", "unmatched", "judged", "version", "published", "sha256")
            values = {"score": each["score"], "low": low, "high": high}
            scores.append({**row, **values, **{key: each[key] for key in kept}})
            for title, members in each.get("parts", {}).items():
                parts += [{**row, "of": title, "part": part, "score": _value(found)} for part, found in members.items()]
    return {"scores": scores, "parts": parts}


def _value(part: Mapping[str, Any]) -> float:
    """Score of a part in [0, 1]; subtasks of MME have points, 200 at most."""
    return part["points"] / 200 if "points" in part else part["score"]


def _cell(found: Mapping[str, Any]) -> Cell:
    score = found.get("score")
    return Cell(percent(score), score, note="" if score is None else percent_interval(found["interval"]))


def _named(label: str) -> Cell:
    return Cell(label, colour=None if label == BASE else look(label).colour)


def _table_5(scored: Sequence[Scored]) -> Table:
    published = read_published()
    columns = published["vision_columns"]
    rows = []
    for each in scored:
        mean = each.scores["mean"]
        rows.append(
            [_named(each.label), *(_cell(each.benchmark(column)) for column in columns), Cell(percent(mean), mean)]
        )
    for row in published["table5"]:
        texts = [f"{value:.1f}" for value in (*row["scores"], row["average"])]
        rows.append([Cell(f"paper: {row['model']}, {row['label']}"), *map(Cell, texts)])
    used = {column: sorted({each.scores["columns"].get(column, "") for each in scored} - {""}) for column in columns}
    sources = "; ".join(f"{column}: {', '.join(names)}" for column, names in used.items() if names)
    limited = [f"{each.label} ({limit})" for each in scored if (limit := each.scores["settings"].get("limit"))]
    caption = (
        "The columns of the paper's Table 5 (%), with 95 % intervals over the questions. One run a row, of one seed: "
        f"the intervals do not cover its choice. Taken from {sources or 'no benchmark yet'}. Avg. is there only where "
        "all nine columns are. Rows marked “paper” were copied from the paper: single runs of other models, each with "
        "CLIP's ViT-L/14-336. Its MMBench is the test split, which only the leaderboard can score, and its judge was "
        "GPT-4-turbo." + (f" Only the first questions were asked of {', '.join(limited)}." if limited else "")
    )
    return Table(caption, ("run", *columns, "Avg."), rows, wide=True)


def _radar_of_columns(scored: Sequence[Scored]) -> list[Picture]:
    columns = read_published()["vision_columns"]
    shared = [column for column in columns if all(each.benchmark(column) for each in scored)]
    if len(shared) < 3:
        return []
    lines = {each.label: [each.benchmark(column)["score"] for column in shared] for each in scored}
    return [_picture("benchmarks", [Axes("", shared, lines)], f"Scores on {', '.join(shared)}")]


def _radar_of_abilities(scored: Sequence[Scored]) -> list[Picture]:
    panels = []
    for column, language in _LANGUAGES.items():
        found = {each.label: each.benchmark(column).get("parts", {}).get("abilities", {}) for each in scored}
        shared = [name for name in next(iter(found.values())) if all(name in each for each in found.values())]
        if len(shared) >= 3:
            lines = {label: [each[name]["score"] for name in shared] for label, each in found.items()}
            panels.append(Axes(f"MMBench, {language}", shared, lines))
    return [_picture("abilities", panels, "Scores on the six abilities of MMBench")] if panels else []


def _picture(name: str, panels: Sequence[Axes], shows: str) -> Picture:
    labels = list(panels[0].lines)
    several = len(labels) > 1
    scale = (
        "Each axis is scaled to its best run, whose score (%) stands at its end. The rings are % of the best, and the "
        "centre is not zero."
        if several
        else "The rings are scores in percent."
    )
    caption = f"{shows}, one line a run. {scale} Lines of one seed cannot say which method is better."
    if name == "abilities":
        caption += (
            " As the paper's Figure 5. LR, AR, RR: logic, attribute and relation reasoning; FP-S, FP-C: fine-grained "
            "perception of single and across instances; CP: coarse perception. All rotations of a question must be "
            "right."
        )
    return Picture(name, radar_figure(panels), f"{shows} of {', '.join(labels)}, as a radar chart.", caption)


def _abilities(scored: Sequence[Scored]) -> list[Table]:
    tables = []
    for column, language in _LANGUAGES.items():
        found = {each.label: each.benchmark(column) for each in scored if "parts" in each.benchmark(column)}
        names = list(dict.fromkeys(name for each in found.values() for name in each["parts"].get("abilities", {})))
        if not names:
            continue
        rows = []
        for label, each in found.items():
            parts = each["parts"].get("abilities", {})
            row = [_named(label), _cell(each), _cell(each.get("vanilla", {}))]
            rows.append([*row, *(_cell(parts.get(name, {})) for name in names)])
        caption = f"MMBench, {language} (%): all rotations right, the first rotation alone, and the abilities."
        tables.append(Table(caption, ("run", "overall", "vanilla", *names), rows, wide=True))
    return tables


def _dots(scored: Sequence[Scored]) -> list[Picture]:
    """Every score with its interval, if they fit a figure."""
    summaries = []
    for label, scores in scored:
        found = {
            name: {"accuracy": each["score"], "interval": each["interval"] or [each["score"]] * 2}
            for name, each in scores["benchmarks"].items()
            if each["score"] is not None
        }
        summaries.append(Summary(label, 0 if label == BASE else 1, None, None, found, None))
    names = list(dict.fromkeys(name for each in summaries for name in each.benchmarks))
    if not names or len(names) * len(summaries) > MOST_SCORES:
        return []
    alt = f"Scores of {', '.join(each.label for each in summaries)} on {', '.join(names)}."
    caption = "Scores with their 95 % intervals over the questions, which do not cover the choice of seed."
    return [Picture("scores", accuracies_figure(summaries, "score"), alt, caption)]


def _mme(scored: Sequence[Scored]) -> list[Table]:
    found = {each.label: each.scores["benchmarks"].get("MME") for each in scored}
    rows = []
    for label, each in found.items():
        if each and "perception" in each and "cognition" in each:
            points = [each[name]["points"] for name in ("perception", "cognition")]
            points = [*points, sum(points)]
            rows.append([_named(label), *(Cell(f"{value:,.1f}", value) for value in points), _cell(each)])
    caption = "MME in points: accuracy plus accuracy+ of each subtask; at most 2000 and 800. Scaled: the total over 28."
    return [Table(caption, ("run", "perception", "cognition", "total", "scaled"), rows)] if rows else []


def _everything(scored: Sequence[Scored]) -> Table:
    rows = []
    for each in scored:
        for name, found in each.scores["benchmarks"].items():
            published = {True: "published", False: "differs", None: "own"}[found["published"]]
            rows.append(
                [
                    Cell(f"{name}, {each.label}", colour=_named(each.label).colour),
                    _cell(found) if found["score"] is not None else Cell("hidden"),
                    Cell(percent(found["chance"]), found["chance"]),
                    *(Cell(count(found[key]), found[key]) for key in ("questions", "unmatched")),
                    Cell(count(found["judged"]) if found["judge"] else MISSING, found["judged"]),
                    Cell(found["judge"]["model"] if found["judge"] else MISSING),
                    Cell(published),
                ]
            )
    header = ("benchmark, run", "score", "chance", "questions", "unread", "by judge", "judge", "file")
    caption = (
        "Every benchmark (%). Chance: who guesses. Unread: answers that neither a rule nor a judge could read; they "
        "count as wrong, and none is drawn at random. File: whether it is VLMEvalKit's, by its MD5."
    )
    return Table(caption, header, rows, wide=True)
