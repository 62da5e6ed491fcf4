"""Run folders of vision-language runs, with scores as `moslora eval vision-language` writes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from moslora import runs
from moslora.tasks.commonsense.score import wilson_interval
from moslora.tasks.vision_language.evaluation.benchmarks import BENCHMARKS
from moslora.tasks.vision_language.evaluation.mme import COGNITION, PERCEPTION

NAMES = tuple(row.name for row in BENCHMARKS if row.answers and row.name != "ScienceQA_VAL")
ABILITIES = ("LR", "AR", "RR", "FP-S", "FP-C", "CP")
# Of the paper's rows: scores that a reader knows, in the order of NAMES.
LORA = (70.8, 68.9, 70.4, 62.2, 72.5, 49.8, 30.2, 33.9, 61.6)
MOSLORA = (73.8, 72.6, 70.3, 66.1, 72.2, 50.2, 30.6, 35.2, 64.1)
LORA_ABILITIES = (45.1, 70.2, 60.3, 74.9, 55.0, 80.4)
MOSLORA_ABILITIES = (50.7, 73.3, 65.9, 76.0, 58.1, 81.2)


def share(percent: float, n: int) -> dict[str, Any]:
    """A part as the scorers write it."""
    correct = round(percent * n / 100)
    return {"score": percent / 100, "interval": list(wilson_interval(correct, n)), "correct": correct, "n": n}


def write_run(
    folder: Path,
    method: str,
    percents: Mapping[str, float],
    abilities: tuple[float, ...] = LORA_ABILITIES,
    into: str = "eval",
    **config: Any,
) -> Path:
    """A finished run with scores.

    Args:
        folder: of the run.
        method: of the run.
        percents: benchmark -> score in percent.
        abilities: scores of both languages of MMBench in percent.
        into: folder of the evaluation.
        config: more settings.
    """
    record = {"task": "vision-language", "status": "done", "config": {"method": method, "model": "llava", **config}}
    facts = {"parameters": {"trainable": 1234567}, "seconds": 61.2, "final_loss": 0.51}
    runs.write_json(folder / "run.json", {**record, **facts})
    runs.append_rows(folder / "metrics.jsonl", [{"step": step, "loss": 2.0 / step} for step in range(1, 20)])
    benchmarks = {name: _benchmark(name, percent, abilities) for name, percent in percents.items()}
    columns = {row.column: row.name for row in BENCHMARKS if row.name in benchmarks}
    mean = sum(percents[name] for name in columns.values()) / 900 if len(columns) == 9 else None
    scores = {"task": "vision-language", "benchmarks": benchmarks, "mean": mean, "columns": columns, "settings": {}}
    runs.write_json(folder / into / "scores.json", scores)
    return folder


def _benchmark(name: str, percent: float, abilities: tuple[float, ...]) -> dict[str, Any]:
    row = next(row for row in BENCHMARKS if row.name == name)
    judged = row.kind in ("mathvista", "mmvet")
    found = {
        **share(percent, row.questions), "interval_method": "Wilson 95 %", "unmatched": 3, "judged": 7 if judged else 0,
        "judge": {"model": "gpt-4-turbo"} if judged else None, "kind": row.kind, "questions": row.questions,
        "chance": 0.25, "version": 1, "published": True, "sha256": "0" * 64, "parts": {},
    }  # fmt: skip
    if row.kind == "circular":
        found["vanilla"] = share(percent + 10, row.questions)
        found["parts"]["abilities"] = {
            each: share(value, 180) for each, value in zip(ABILITIES, abilities, strict=True)
        }
    if name == "MME":
        part = {"accuracy": share(percent, 60), "accuracy_plus": share(percent, 30), "points": 2 * percent}
        found["parts"]["subtasks"] = dict.fromkeys((*PERCEPTION, *COGNITION), part)
        found |= {
            "perception": {"points": 20 * percent, "most": 2000},
            "cognition": {"points": 8 * percent, "most": 800},
        }
    return found
