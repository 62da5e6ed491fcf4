"""From the answers in a folder to scores.json, unparsed.md and the leaderboard's files. No torch."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from .... import runs
from . import choice, mathvista, mme, mmvet, vqa
from .asked import has_answer
from .benchmarks import BENCHMARKS, COLUMNS, Kind
from .intervals import share
from .judge import Judge
from .judging import extract
from .submission import write_submission

TASK = "vision-language"
EXAMPLES = 5  # outputs of each benchmark that unparsed.md shows
_SCORES: Mapping[Kind, Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]]] = {
    "choice": choice.score_choice,
    "circular": choice.score_circular,
    "yes-no": mme.score_yes_no,
    "vqa": vqa.score_vqa,
    "mathvista": mathvista.score_mathvista,
    "mmvet": mmvet.score_mmvet,
}
_JUDGED: tuple[Kind, ...] = ("choice", "circular", "yes-no", "mathvista", "mmvet")


def predictions_file(folder: Path, name: str) -> Path:
    """Where the answers to a benchmark lie."""
    return folder / "predictions" / f"{name}.jsonl"


def write_scores(
    folder: Path,
    judge: Judge | None = None,
    leaderboard: Mapping[str, float] | None = None,
    done: Callable[[str, int, int], None] = lambda *_: None,
) -> dict[str, Any]:
    """Score every benchmark of eval.json that is answered to the end, also those of earlier commands.

    Args:
        folder: of the evaluation.
        judge: is asked about answers that no rule can read, and for grades. Without one, a benchmark that a judge has
            scored before keeps that score.
        leaderboard: scores in [0, 1] of benchmarks whose answers are hidden; later commands keep them.
        done: told of every reply: benchmark, how many, of how many.

    Returns:
        the content of scores.json: `benchmarks` (name -> what its rule says, and the row of eval.json), `mean` over the
        nine columns of Table 5, None unless all are there, `columns` (those that are), and `settings`.

    Raises:
        RunError: the judge does not answer.
    """
    record = runs.read_json(folder / "eval.json")
    rows = {name: runs.read_rows(predictions_file(folder, name)) for name in record["data"]}
    complete = {name: each for name, each in rows.items() if len(each) == record["data"][name]["rows"]}
    before = runs.read_json(folder / "scores.json")["benchmarks"] if (folder / "scores.json").exists() else {}
    benchmarks, lost = {}, {}
    for name, each in complete.items():
        kind = record["data"][name]["kind"]
        kept = before.get(name, {})
        if judge is None and kept.get("judge") and kind in _JUDGED:
            found, judged = kept, runs.read_rows(folder / "extracted" / f"{name}.jsonl")
        else:
            found, judged = _score(folder, name, kind, each, judge, done)
        benchmarks[name] = {**found, **record["data"][name]}
        reported = (leaderboard or {}).get(name, kept.get("leaderboard"))
        if "submission" in found and reported is not None:
            benchmarks[name] |= {**share(round(reported * found["n"]), found["n"]), "leaderboard": reported}
            benchmarks[name]["score"] = reported
        lost[name] = [row for row in judged if row["by"] is None]
    columns = _columns(benchmarks)
    whole = len(columns) == len(COLUMNS)
    mean = sum(benchmarks[name]["score"] for name in columns.values()) / len(COLUMNS) if whole else None
    scores = {"task": TASK, "benchmarks": benchmarks, "mean": mean, "columns": columns, "settings": record["settings"]}
    runs.write_json(folder / "scores.json", scores)
    runs.write_text(folder / "unparsed.md", unparsed_report(lost, {name: len(rows[name]) for name in lost}))
    return scores


def _score(
    folder: Path,
    name: str,
    kind: Kind,
    rows: Sequence[Mapping[str, Any]],
    judge: Judge | None,
    done: Callable[[str, int, int], None],
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Scores of one benchmark, and its rows with what was found in each; None for a score that needs hidden answers."""
    asked = judge if judge is not None and kind in _JUDGED else None

    def ask(prompts: Sequence[str], parse: Callable[[str], Any]) -> list[Any]:
        assert asked is not None
        count = len(set(prompts))
        numbers = iter(range(1, count + 1))
        return asked.ask(prompts, parse, folder / "judge" / f"{name}.jsonl", lambda: done(name, next(numbers), count))

    judged = extract(rows, kind, ask if asked else None)
    keys = ("index", "output", "answer", "prediction", "extraction", "grade", "by")
    runs.rewrite_rows(
        folder / "extracted" / f"{name}.jsonl", [{key: row[key] for key in keys if key in row} for row in judged]
    )
    counts = {
        "unmatched": sum(row["by"] is None for row in judged),
        "judged": sum(row["by"] == "judge" for row in judged),
        "judge": asked.describe() if asked else None,
    }
    if all(map(has_answer, rows)):
        return {**_SCORES[kind](judged), **counts}, judged
    if kind == "circular":
        write_submission(folder / "submissions" / f"{name}.xlsx", judged)
        counts["submission"] = f"submissions/{name}.xlsx"
    return {"score": None, "interval": None, "n": len({choice.question_of(row) for row in rows}), **counts}, judged


def _columns(benchmarks: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """Column of Table 5 -> the benchmark that fills it: the test split, as in the paper, where it has a score."""
    found = {}
    for column in COLUMNS:
        names = [row.name for row in BENCHMARKS if row.column == column and row.name in benchmarks]
        scored = [name for name in names if benchmarks[name]["score"] is not None]
        if scored:
            found[column] = max(scored, key=lambda name: "TEST" in name)
    return found


def unparsed_report(lost: Mapping[str, Sequence[Mapping[str, Any]]], asked: Mapping[str, int]) -> str:
    """Markdown: how many answers neither a rule nor a judge could read, and the first of them.

    Args:
        lost: benchmark -> rows with `index`, `output` and perhaps `answer`.
        asked: benchmark -> number of its rows.
    """
    lines = ["# Answers that could not be read", ""]
    lines += ["They count as wrong; of MM-Vet, as what could be found literally. No option is drawn at random.", ""]
    lines += ["| benchmark | unread | rows |", "| --- | ---: | ---: |"]
    lines += [f"| {name} | {len(rows)} | {asked[name]} |" for name, rows in lost.items()]
    for name, rows in lost.items():
        if rows:
            lines += ["", f"## {name}: the first {min(EXAMPLES, len(rows))} of {len(rows)}"]
        for row in rows[:EXAMPLES]:
            output = "\n".join(f"    {line}" for line in row["output"].splitlines()) or "    (nothing)"
            expected = f", expected `{row['answer']}`" if row.get("answer") else ""
            lines += ["", f"Row {row['index']}{expected}:", "", output]
    return "\n".join(lines) + "\n"
