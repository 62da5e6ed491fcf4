"""Made-up study folders of the shape that `moslora compare` writes, for tests of what is drawn from them."""

import json
import math
import statistics as stats
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import numpy
import safetensors.numpy
from scipy import special

from moslora import runs

METHODS = (
    "lora",
    "moslora",
    "ts-mixing",
    "lokr",
    "loha",
    "flora",
    "adalora",
    "dora",
    "lora-scaled",
    "moslora-folded",
    "moslora-frozen",
    "lora-plus",
    "moslora-orthogonal",
    "full",
)
PAPER = ("ARC-Easy", "openbookqa", "social_i_qa", "ARC-Challenge", "winogrande", "piqa", "boolq", "hellaswag")
STUDENT = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776}  # 97.5 % points for n seeds


def write_study(
    folder: Path,
    methods: Sequence[str] = METHODS,
    benchmarks: Sequence[str] = tuple(f"toy-{name}" for name in PAPER),
    rates: Sequence[float] = (1e-3, 3e-3, 1e-2),
    seeds: Sequence[int] = (0, 1, 2, 3, 4),
    fractions: Sequence[float] = (1.0,),
    steps: int = 300,
) -> dict[str, Any]:
    """Write study.json, statistics.json and the cells that a report reads; returns the statistics."""
    draw = Random(0)
    cells = [
        {"name": f"{place}/lr{rate}-f{share}-seed{seed}", "method": method, "learning_rate": rate, "seed": seed}
        | {"train_fraction": share}
        for place, method in enumerate(methods)
        for share in fractions
        for rate in rates
        for seed in seeds
    ]
    for cell in cells:
        _write_cell(folder / "cells" / cell["name"], cell, steps, draw)
    config = {"model": "embedded", "data": "embedded", "methods": list(methods), "learning_rates": list(rates)}
    config |= {
        "seeds": list(seeds),
        "train_fractions": list(fractions),
        "rank": 8,
        "evaluation": {"data": "tests", "num_beams": 1},
    }
    runs.write_json(
        folder / "study.json",
        {"task": "commonsense", "config": config, "baseline": methods[0], "benchmarks": list(benchmarks)}
        | {"cells": cells, "versions": runs.versions(), "started": "2026-01-01T00:00:00+00:00"},
    )
    statistics = _statistics(methods, benchmarks, rates, seeds, fractions, draw)
    runs.write_json(folder / "statistics.json", statistics)
    return statistics


def _statistics(methods, benchmarks, rates, seeds, fractions, draw) -> dict[str, Any]:
    arms, sweep = [], []
    shift = {name: draw.gauss(0, 0.1) for name in benchmarks}
    for share in fractions:
        baseline = None
        for place, method in enumerate(methods):
            level = 0.55 + 0.006 * math.sin(3 * place) + 0.08 * math.log2(share) / 3
            for rate in rates:
                found = {"method": method, "train_fraction": share, "learning_rate": rate, "seeds": list(seeds)}
                offset = level - 0.03 * abs(math.log10(rate / rates[len(rates) // 2]))
                sweep.append(found | {kind: _spread(draw, offset, seeds) for kind in ("validation", "test")})
            each = {name: _spread(draw, level + shift[name], seeds) for name in benchmarks}
            averages = [stats.mean(one["accuracies"][seed] for one in each.values()) for seed in range(len(seeds))]
            average = {"accuracies": averages, "mean": stats.mean(averages), "interval": _interval(averages)}
            against = _against(averages, baseline, draw) if baseline else None
            baseline = baseline or averages
            arms.append(
                {"method": method, "train_fraction": share, "learning_rate": rates[len(rates) // 2]}
                | {"seeds": list(seeds), "parameters": 1500 if method == "lokr" else 147456 + 640 * place}
                | {"seconds": 61.5 + place, "peak_bytes": 734003200 + place, "benchmarks": each, "average": average}
                | {"validation": _spread(draw, level, seeds), "against_baseline": against}
            )
    base = {name: {"accuracy": 0.25 + draw.gauss(0, 0.02), "interval": [0.2, 0.3]} for name in benchmarks}
    return {
        "baseline": methods[0],
        "interval": "Student t over seeds, 95 %",
        "test": "paired t over seeds, two-sided, Holm over the arms of one train_fraction",
        "selection": "highest mean validation accuracy",
        "arms": arms,
        "sweep": sweep,
        "base": {"benchmarks": base, "average": stats.mean(one["accuracy"] for one in base.values())},
        "failed": [{"cell": "3/lr0.01-f1.0-seed4", "error": "RunError: the loss became infinite at step 12."}],
        "conclusions": [
            "No method differs from lora by more than chance would explain (smallest p after Holm's correction 0.21).",
            "moslora and lora differ by +0.4 points (95 % interval -0.9 to +1.7, 5 seeds): a null result.",
            "A difference as small as that would need 88 seeds to be seen with 80 % power.",
        ],
    }


def _spread(draw: Random, level: float, seeds: Sequence[int]) -> dict[str, Any]:
    accuracies = [level + draw.gauss(0, 0.01) for _ in seeds]
    return {"accuracies": accuracies, "mean": stats.mean(accuracies), "interval": _interval(accuracies)}


def _interval(values: Sequence[float]) -> list[float] | None:
    if len(values) < 2:
        return None
    half = STUDENT[len(values)] * stats.stdev(values) / math.sqrt(len(values))
    return [stats.mean(values) - half, stats.mean(values) + half]


def _against(averages: Sequence[float], baseline: Sequence[float], draw: Random) -> dict[str, Any]:
    differences = [mine - theirs for mine, theirs in zip(averages, baseline, strict=True)]
    t = (
        stats.mean(differences) / (stats.stdev(differences) / math.sqrt(len(differences)))
        if len(differences) > 1
        else 0
    )
    p = 2 * float(special.stdtr(max(len(differences) - 1, 1), -abs(t)))
    found = {"difference": stats.mean(differences), "interval": _interval(differences)}
    return found | {"p": p, "p_holm": min(1.0, 3 * p), "seeds_needed": draw.randrange(3, 400)}


def _write_cell(folder: Path, cell: dict[str, Any], steps: int, draw: Random) -> None:
    record = {"status": "done", "config": cell, "parameters": {"trainable": 147456}, "seconds": 61.5, "final_loss": 0.4}
    level = 0.4 + 0.05 * draw.random()
    rows = [
        {"step": step, "loss": level + 2.5 * math.exp(-step / 60) + abs(draw.gauss(0, 0.03)), "seconds": step / 5}
        for step in range(1, steps + 1, 3)
    ]
    folder.mkdir(parents=True)
    (folder / "run.json").write_text(json.dumps(record | {"versions": {"moslora": "0"}, "git": None}))
    (folder / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    if cell["method"].startswith("moslora"):
        write_mixers(folder / "adapter", layers=12, seed=draw.randrange(2**32))


def write_mixers(adapter: Path, layers: int, rank: int = 8, seed: int = 0) -> dict[str, numpy.ndarray]:
    """An adapter file with mixers and one other tensor; returns layer -> M."""
    draw = numpy.random.default_rng(seed)
    mixers = {f"model.layers.{n}.self_attn.q_proj": draw.normal(size=(rank, rank)).astype("<f4") for n in range(layers)}
    adapter.mkdir(parents=True, exist_ok=True)
    tensors = {f"base_model.model.{layer}.lora_A.mixer": M for layer, M in mixers.items()}
    tensors["base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"] = draw.normal(size=(rank, 24))
    safetensors.numpy.save_file(tensors, adapter / "adapter_model.safetensors")
    return mixers
