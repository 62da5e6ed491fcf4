"""Faults put into training runs on purpose: what is lost, and what the person at the keyboard is told."""

import contextlib
import dataclasses
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest
import torch
import transformers

from moslora import runs
from moslora.errors import MoSLoRAWarning, RunError, Stopped
from moslora.resume import COMPLETE
from moslora.tasks import guarded
from moslora.tasks.commonsense.config import CommonsenseTrainConfig
from moslora.tasks.commonsense.train import train
from tests.helpers import adapter_weights, command_line

ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


@pytest.fixture(scope="module")
def config(small_config):
    return small_config


def _same(one: Path, other: Path) -> bool:
    weights = adapter_weights(one), adapter_weights(other)
    return weights[0].keys() == weights[1].keys() and all(
        torch.equal(weights[0][key], weights[1][key]) for key in weights[0]
    )


def _interrupted(config: CommonsenseTrainConfig, folder: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A run that a signal stops after `step` steps."""
    with monkeypatch.context() as patched:
        _at_call(patched, 2 * step - 1, lambda outcome: os.kill(os.getpid(), signal.SIGTERM) or outcome)
        with pytest.raises(Stopped, match=f"SIGTERM after step {step}.*goes on"):
            train(config, folder)


def _at_call(monkeypatch: pytest.MonkeyPatch, number: int, change) -> list[list[int]]:
    """Change what one forward pass of training returns; gives the rows of all passes so far. A step has two passes."""
    original, strip = transformers.Trainer.compute_loss, guarded.without_rows
    rows: list[list[int]] = []

    def loss(self, *words, **named):
        outcome = original(self, *words, **named)
        return change(outcome) if len(rows) - 1 == number else outcome

    def seen(batch):
        rows.append(batch["rows"].tolist())
        return strip(batch)

    monkeypatch.setattr(transformers.Trainer, "compute_loss", loss)
    monkeypatch.setattr(guarded, "without_rows", seen)
    return rows


@pytest.mark.parametrize("step", [1, 5, 11])
def test_sigterm_saves_and_stops_and_the_same_command_ends_with_the_same_bits(
    config, small_run, tmp_path, monkeypatch, step
):
    out = tmp_path / "run"
    _interrupted(config, out, monkeypatch, step)
    record = runs.read_json(out / "run.json")
    assert record["status"] == "stopped"
    assert "error" not in record
    assert (out / "checkpoints" / f"checkpoint-{step}" / COMPLETE).exists()
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    train(config, out)
    assert runs.read_json(out / "run.json")["resumed_from_steps"] == [step]
    assert _same(out, small_run)


def test_the_command_ends_with_the_code_of_the_signal(config, tmp_path, moslora_command):
    out = tmp_path / "run"
    long = dataclasses.replace(config, max_steps=5000, save_steps=1000)
    process = subprocess.Popen(
        [*moslora_command, *command_line("commonsense", long, out)], stderr=subprocess.PIPE, env=ENVIRONMENT
    )
    deadline = time.monotonic() + 120
    while not (out / "metrics.jsonl").exists():
        assert process.poll() is None, process.stderr.read().decode()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    said = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 128 + signal.SIGTERM, said
    assert "Stopped by SIGTERM after step" in said
    assert runs.read_json(out / "run.json")["status"] == "stopped"


@pytest.mark.parametrize("damage", ["flipped bit", "cut", "missing", "empty"])
def test_a_damaged_checkpoint_is_set_aside_and_the_one_before_it_is_used(
    config, small_run, tmp_path, monkeypatch, damage
):
    out, draw = tmp_path / "run", Random(damage)
    _interrupted(config, out, monkeypatch, 9)  # checkpoints after 8 and 9
    files = [path for path in sorted((out / "checkpoints" / "checkpoint-9").iterdir()) if path.name != COMPLETE]
    path = draw.choice(files)
    content = bytearray(path.read_bytes())
    if damage == "flipped bit":
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
        path.write_bytes(content)
    elif damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "missing":
        path.unlink()
    else:
        path.write_bytes(b"")
    with pytest.warns(MoSLoRAWarning, match=rf"checkpoint-9 is damaged.*{path.name}"):
        train(config, out)
    assert runs.read_json(out / "run.json")["resumed_from_steps"] == [8]
    assert _same(out, small_run)


def test_a_loss_that_is_no_number_stops_with_its_step_and_samples_before_the_update(config, tmp_path, monkeypatch):
    out = tmp_path / "run"
    rows = _at_call(monkeypatch, 10, lambda outcome: outcome * float("nan"))  # the first pass of step 6
    with pytest.raises(RunError, match="The loss is not a finite number at step 6") as caught:
        train(config, out)
    assert f"samples {', '.join(map(str, sorted(rows[10])))} (" in str(caught.value)
    assert f"last good checkpoint is {out / 'checkpoints' / 'checkpoint-4'}" in str(caught.value)
    assert runs.read_json(out / "run.json")["status"] == "failed"


def test_with_skip_nonfinite_such_an_update_leaves_no_trace_but_its_record(config, tmp_path, monkeypatch):
    steady = dataclasses.replace(
        config, lr_scheduler="constant", warmup_steps=0, logging_steps=1, save_steps=1, dropout=0.0
    )
    train(dataclasses.replace(steady, max_steps=2), tmp_path / "two")
    with monkeypatch.context() as patched:
        rows = _at_call(patched, 4, lambda outcome: outcome * float("inf"))  # in step 3
        with pytest.warns(MoSLoRAWarning, match="at step 3.*left out"):
            train(dataclasses.replace(steady, max_steps=3, skip_nonfinite=True), tmp_path / "three")
    assert _same(tmp_path / "two", tmp_path / "three")
    record = runs.read_json(tmp_path / "three" / "run.json")
    assert record["skipped_updates"] == [{"step": 3, "samples": sorted(rows[4])}]


def test_a_run_that_stopped_at_such_a_loss_goes_on_with_skip_nonfinite(config, tmp_path, monkeypatch):
    out = tmp_path / "run"
    with monkeypatch.context() as patched:
        _at_call(patched, 10, lambda outcome: outcome * float("nan"))
        with pytest.raises(RunError, match="--skip-nonfinite"):
            train(config, out)
    train(dataclasses.replace(config, skip_nonfinite=True), out)
    assert runs.read_json(out / "run.json")["status"] == "done"


def test_gradients_are_looked_at_as_well():
    sound, broken, without = (torch.nn.Parameter(torch.ones(3)) for _ in range(3))
    sound.grad, broken.grad = torch.ones(3), torch.tensor([1.0, float("nan"), 1.0])
    assert guarded.finite_gradients([sound, without])
    assert not guarded.finite_gradients([sound, broken])


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), MemoryError("can't allocate memory")])
def test_out_of_memory_says_what_to_change_and_the_changed_command_goes_on(config, tmp_path, monkeypatch, error):
    out = tmp_path / "run"

    def fail(outcome):
        raise error

    with monkeypatch.context() as patched:
        _at_call(patched, 12, fail)
        with pytest.raises(RunError, match=r"(?s)--micro-batch-size 2 \(now 4\).*moslora plan"):
            train(config, out)
    train(dataclasses.replace(config, micro_batch_size=2, gradient_checkpointing=True), out)
    record = runs.read_json(out / "run.json")
    assert record["status"] == "done"
    assert record["resumed_from_steps"] == [4]
    assert record["config"]["micro_batch_size"] == 2


@contextlib.contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    done = subprocess.run(mount, capture_output=True, check=False)
    if done.returncode:
        pytest.skip("needs the right to mount a small file system")
    try:
        yield
    finally:
        subprocess.run(["umount", folder], check=True)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_full_disk_is_said_and_the_run_goes_on_when_there_is_room(config, small_run, tmp_path):
    with _small_disk(tmp_path / "disk", "6m"):
        out, filler = tmp_path / "disk" / "run", tmp_path / "disk" / "filler"
        with filler.open("wb") as file, contextlib.suppress(OSError):
            for _ in range(60):
                file.write(bytes(100_000))  # leaves less than one checkpoint and its predecessor take
        with pytest.raises(RunError, match=r"disk of .* is full|cannot be written"):
            train(config, out)
        filler.unlink()
        train(config, out)
        assert _same(out, small_run)


@pytest.mark.skipif(sys.platform != "linux", reason="mounts a tmpfs")
def test_a_folder_that_cannot_be_written_is_refused_before_training(config, tmp_path):
    with _small_disk(tmp_path / "disk", "1m"):
        subprocess.run(["mount", "-o", "remount,ro", tmp_path / "disk"], check=True)
        with pytest.raises(RunError, match=r"cannot be written into .*Read-only.*another --out"):
            train(config, tmp_path / "disk" / "run")


def test_names_in_other_letters_and_a_locale_of_ascii_change_nothing(config, small_run, tmp_path, moslora_command):
    data = tmp_path / os.fsdecode("日本 🎻".encode() + b"\xe4.json")  # the last letter is no UTF-8
    shutil.copyfile(config.data[0], data)
    out = tmp_path / "Läufe 🎻"
    command = [*moslora_command, *command_line("commonsense", dataclasses.replace(config, data=(str(data),)), out)]
    done = subprocess.run(command, capture_output=True, env=ENVIRONMENT | {"LC_ALL": "C"}, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert _same(out, small_run)
    assert runs.read_json(out / "run.json")["config"]["data"] == [str(data)]


def test_a_folder_whose_name_is_no_utf_8_is_refused_before_training(config, tmp_path):
    with pytest.raises(RunError, match=r"cannot be written into .*surrogates.*another --out"):
        train(config, tmp_path / os.fsdecode(b"L\xe4ufe"))


def test_a_clock_that_runs_backwards_changes_nothing(config, small_run, tmp_path, monkeypatch):
    """By a day at every look, in a run that is interrupted and resumed."""
    days, now = iter(range(10**6)), time.time()
    monkeypatch.setattr(time, "time", lambda: now - 86_400 * next(days))
    _interrupted(config, tmp_path / "run", monkeypatch, step=3)
    record = train(config, tmp_path / "run")
    assert next(days) > 2  # it was looked at
    assert 0 < record["seconds"] < 600
    assert _same(tmp_path / "run", small_run)


@pytest.mark.slow
def test_kills_at_random_moments_lose_nothing(config, tmp_path, moslora_command):
    """Each process is killed after a random time, and the next one goes on."""
    long = dataclasses.replace(config, max_steps=1000, save_steps=2, logging_steps=2)
    train(long, tmp_path / "undisturbed")
    out, draw, kills = tmp_path / "run", Random(0), 0
    command = [*moslora_command, *command_line("commonsense", long, out)]
    while kills < 30:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENVIRONMENT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(draw.uniform(4.0, 8.0))
        if process.poll() is not None:
            break
        process.kill()
        process.wait()
        kills += 1
    if not runs.is_done(out):
        done = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
    assert kills >= 5
    assert _same(out, tmp_path / "undisturbed")
