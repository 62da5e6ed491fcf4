"""The grid on a tiny model: what it leaves, that it grows, and that it survives kill -9, failures and dying workers."""

import copy
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import time
from pathlib import Path

import psutil
import pytest
import safetensors.torch
import torch
import tyro

from moslora import runs
from moslora.cli.compare_commonsense import Command
from moslora.compare import grid, results
from moslora.compare.study import Cell, Study, is_finished, slug
from moslora.compare.workers import environment
from moslora.errors import ConfigError, RunError
from moslora.locks import lock_folder
from moslora.resume import COMPLETE
from moslora.tasks.commonsense.config import CommonsenseEvalConfig, CommonsenseTrainConfig
from moslora.tasks.commonsense.estimate import estimate
from moslora.tasks.commonsense.train import train
from tests.tasks.commonsense.conftest import SMALL

ASSIGNMENTS = {**SMALL, "max_steps": 8, "logging_steps": 1, "save_steps": 2, "dropout": 0.0, "train_on_inputs": False}


def _study(tiny_model, questions, **changes):
    train = CommonsenseTrainConfig(
        model=str(tiny_model), data=(str(questions / "train.json"),), **{**ASSIGNMENTS, "max_grad_norm": 0.0}
    )
    evaluation = CommonsenseEvalConfig(
        run=Path(), data=questions, benchmarks=("toy",), decoding="greedy", max_new_tokens=6, limit=10
    )
    settings = {
        "methods": ("lora", "moslora"),
        "learning_rates": (3e-2,),
        "seeds": (0, 1),
        "train_fractions": (1.0,),
        "baseline": "lora",
        "validation_size": 12,
    }
    return Study(train=train, evaluation=evaluation, **{**settings, **changes})


def _command(moslora_command, tiny_model, questions, out):
    settings = [
        f"{key}={json.dumps(value)}"
        for key, value in {**ASSIGNMENTS, "max_grad_norm": 0.0}.items()
        if key != "learning_rate"
    ]
    words = f"compare commonsense --model {tiny_model} --data {questions / 'train.json'} --tests {questions} "
    words += f"--benchmarks toy --seeds 0 1 --learning-rates 3e-2 --validation-size 12 --out {out} --jobs 2 --set "
    return [*moslora_command, *words.split(), *settings, "--eval", "decoding=greedy", "max_new_tokens=6", "limit=10"]


def _without_times(statistics):
    statistics = copy.deepcopy(statistics)
    for arm in statistics["arms"]:
        del arm["seconds"]
    return statistics


@pytest.fixture(scope="module")
def finished(tiny_model, questions, tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    outcome = grid.run_grid(_study(tiny_model, questions), folder, jobs=2)
    assert outcome == (4, {})
    results.write_statistics(folder)
    return folder


def test_a_grid_leaves_run_folders_scores_and_statistics(finished):
    study, statistics = (runs.read_json(finished / name) for name in ("study.json", "statistics.json"))
    names = [cell["name"] for cell in study["cells"]]
    assert names[:2] == ["lora/lr0.03-f1.0-seed0", "moslora/lr0.03-f1.0-seed0"]
    assert len(names) == 4
    for arm in statistics["arms"]:
        cells = [finished / "cells" / arm["method"] / f"lr0.03-f1.0-seed{seed}" for seed in (0, 1)]
        scores = [runs.read_json(cell / "eval" / "scores.json") for cell in cells]
        validation = [runs.read_json(cell / "eval-validation" / "scores.json") for cell in cells]
        records = [runs.read_json(cell / "run.json") for cell in cells]
        assert arm["average"]["accuracies"] == [each["mean"] for each in scores]
        assert arm["validation"]["accuracies"] == [each["benchmarks"]["answer4"]["accuracy"] for each in validation]
        assert {each["benchmarks"]["answer4"]["n"] for each in validation} == {12}
        assert {each["benchmarks"]["toy"]["n"] for each in scores} == {10}
        assert {each["parameters"]["trainable"] for each in records} == {arm["parameters"]}
        assert arm["seconds"] == pytest.approx(sum(each["seconds"] for each in records) / 2)
        assert [each["samples"]["train"] for each in records] == [
            106,
            106,
        ]  # 12 questions and two copies of them are held out
    base = runs.read_json(finished / "base" / "eval-base" / "scores.json")
    assert statistics["base"]["average"] == base["mean"]
    assert statistics["failed"] == []


def test_cells_of_one_seed_share_the_order_of_the_data_and_the_start(tiny_model, questions, tmp_path):
    study = _study(tiny_model, questions, learning_rates=(1e-30,))  # so small that only the data moves the loss
    losses, factors = {}, {}
    for cell in study.cells():
        run = tmp_path / cell.name
        train(grid.cell_config(study, cell, study.train.data), run)
        losses[cell.method, cell.seed] = [row["loss"] for row in runs.read_rows(run / "metrics.jsonl")]
        weights = safetensors.torch.load_file(run / "adapter" / "adapter_model.safetensors")
        named = {key.replace("lora_A.raw", "lora_A.weight"): value for key, value in weights.items()}
        factors[cell.method, cell.seed] = {key: named[key] for key in named if key.endswith("lora_A.weight")}
    for seed in (0, 1):
        assert losses["lora", seed] == pytest.approx(losses["moslora", seed], rel=1e-5)
        assert factors["lora", seed].keys() == factors["moslora", seed].keys() != set()
        for key, value in factors["lora", seed].items():
            assert torch.equal(value, factors["moslora", seed][key])
    assert losses["lora", 0] != pytest.approx(losses["lora", 1], rel=1e-5)


def test_finished_cells_are_skipped_and_other_settings_refused(finished, tiny_model, questions):
    before = (finished / "progress.jsonl").read_bytes()
    assert grid.run_grid(_study(tiny_model, questions), finished, jobs=1) == (4, {})
    assert (finished / "progress.jsonl").read_bytes() == before
    with pytest.raises(RunError, match=r"config\.split_seed: 0 in the folder, 1 now"):
        grid.run_grid(_study(tiny_model, questions, split_seed=1), finished, jobs=1)
    lock = lock_folder(finished)
    with pytest.raises(RunError, match="Another process is at work"):
        grid.run_grid(_study(tiny_model, questions), finished, jobs=1)
    os.close(lock)


@pytest.mark.slow
def test_failures_of_cells_and_workers_cost_nothing_else_and_a_grid_grows(tiny_model, questions, tmp_path, monkeypatch):
    first = _study(tiny_model, questions, learning_rates=(1e30, 3e-2), seeds=(0,))

    def deadly(study, cell, folder):
        job = ORIGINAL(study, cell, folder)
        return job._replace(evaluations=(Bomb(),)) if cell == Cell("lora", 3e-2, 0, 1.0) else job

    monkeypatch.setattr(grid, "_job", deadly)
    outcome = grid.run_grid(first, tmp_path, jobs=1)
    assert outcome.done == 1
    assert "The loss is" in outcome.failed["lora/lr1e+30-f1.0-seed0"]
    assert "The loss is" in outcome.failed["moslora/lr1e+30-f1.0-seed0"]
    assert "was ended by SIGKILL" in outcome.failed["lora/lr0.03-f1.0-seed0"]
    statistics = results.write_statistics(tmp_path)
    assert [(arm["method"], arm["learning_rate"]) for arm in statistics["arms"]] == [("moslora", 3e-2)]
    assert {each["cell"]: each["error"] for each in statistics["failed"]} == outcome.failed

    monkeypatch.setattr(grid, "_job", ORIGINAL)
    second = _study(tiny_model, questions, seeds=(0,), train_fractions=(1.0, 0.5), methods=("moslora", "lora"))
    assert grid.run_grid(second, tmp_path, jobs=1) == (4, {})
    statistics = results.write_statistics(tmp_path)
    arms = [(arm["method"], arm["train_fraction"]) for arm in statistics["arms"]]
    assert sorted(arms) == [("lora", 0.5), ("lora", 1.0), ("moslora", 0.5), ("moslora", 1.0)]
    assert len(statistics["failed"]) == 2  # the other learning rate, which the last command did not ask for
    assert len(runs.read_json(tmp_path / "study.json")["cells"]) == 6
    half = runs.read_json(tmp_path / "cells" / "lora" / "lr0.03-f0.5-seed0" / "run.json")
    assert half["samples"]["train"] == 53


ORIGINAL = grid._job


class Bomb:
    """Kills the process that unpickles it."""

    def __reduce__(self):
        return signal.raise_signal, (signal.SIGKILL,)


@pytest.mark.slow
def test_kill_9_and_the_same_command_gives_the_same_statistics(
    finished, tiny_model, questions, tmp_path, moslora_command
):
    out = tmp_path / "study"
    command = _command(moslora_command, tiny_model, questions, out)
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 120
    while not list(out.glob(f"cells/*/*/checkpoints/checkpoint-4/{COMPLETE}")):
        assert process.poll() is None, process.stderr.read().decode()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children()
    process.kill()
    process.wait()
    assert len(workers) == 2
    assert psutil.wait_procs(workers, timeout=10)[1] == []  # none outlives its parent
    assert not (out / "statistics.json").exists()

    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert "No difference was found" in done.stdout or "was better" in done.stdout or "was worse" in done.stdout
    expected, found = (runs.read_json(folder / "statistics.json") for folder in (finished, out))
    assert _without_times(found) == _without_times(expected)
    for name in ("eval", "eval-validation"):
        outputs = [
            {path.relative_to(folder): path.read_text() for path in folder.glob(f"cells/*/*/{name}/predictions/*")}
            for folder in (finished, out)
        ]
        assert outputs[0] == outputs[1] != {}
    resumed = [json.loads(path.read_text()).get("resumed_from_steps") for path in out.glob("cells/*/*/run.json")]
    assert any(resumed)


def test_a_terminated_study_says_how_to_go_on(tiny_model, questions, tmp_path, moslora_command):
    out = tmp_path / "study"
    process = subprocess.Popen(
        _command(moslora_command, tiny_model, questions, out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while not list(out.glob("logs/worker-1.log")):
        assert process.poll() is None
        time.sleep(0.01)
    workers = psutil.Process(process.pid).children()
    process.terminate()
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "the same command goes on" in printed
    assert psutil.wait_procs(workers, timeout=10)[1] == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"baseline": "dora"}, "the baseline 'dora' is not among the methods"),
        ({"seeds": (0, 0), "learning_rates": ()}, "learning_rates is empty.*\n.*seeds has 0 twice"),
        ({"methods": ("lora", "mosl")}, "Did you mean"),
        ({"train_fractions": (0.0,)}, "train_fraction"),
        ({"learning_rates": (-1.0,)}, "learning_rate is -1.0"),
        ({"validation_size": 0, "learning_rates": (1e-4, 1e-3)}, "nothing to choose a learning rate on"),
    ],
)
def test_a_grid_that_cannot_be_used_is_refused_before_training(tiny_model, questions, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        grid.run_grid(_study(tiny_model, questions, **changes), tmp_path / "study", jobs=1)
    assert not list(tmp_path.glob("study/cells/*"))


def test_workers_share_cores_and_gpus(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr("moslora.compare.workers.cores", lambda: 8)
    given = [environment(number, 3, devices=("4", "7")) for number in range(3)]
    assert [each["CUDA_VISIBLE_DEVICES"] for each in given] == ["4", "7", "4"]
    assert {each["OMP_NUM_THREADS"] for each in given} == {"2"}
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    assert environment(0, 3, devices=())["OMP_NUM_THREADS"] == "5"


def test_a_method_file_has_a_folder_of_its_own():
    first, second = slug("file:a/loha.json"), slug("file:b/loha.json")
    assert first != second
    assert "/" not in first
    assert first.startswith("file-loha-")


def test_methods_are_matched_in_parameters_but_full_fine_tuning_keeps_its_size(tiny_model, questions, tmp_path):
    words = (
        f"--model {tiny_model} --tests {questions} --benchmarks toy --data x.json --out {tmp_path} --match parameters"
    )
    command = tyro.cli(Command, args=[*words.split(), "--methods", "lora", "loha", "full", "--set", "rank=8"])
    study = command.study()
    sizes = {method: estimate(grid.method_config(study, method)).trainable for method in study.methods}
    unmatched = dataclasses.replace(study.train, method="loha", match="")
    assert abs(sizes["loha"] - sizes["lora"]) < abs(estimate(unmatched).trainable - sizes["lora"])
    assert abs(sizes["loha"] / sizes["lora"] - 1) < 0.15
    assert sizes["full"] > 2 * sizes["lora"]
    assert tyro.cli(Command, args=shlex.split(command.line())[3:]) == command


def test_an_unknown_cell_is_not_finished(finished):
    assert not is_finished(finished, runs.read_json(finished / "study.json"), "lora/lr9-f1.0-seed0")
