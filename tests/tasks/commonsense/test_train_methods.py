"""Training runs of the methods that need more than an adapter: they end, load, and survive an interruption."""

import dataclasses
import json
from pathlib import Path

import peft
import pytest
import safetensors.torch
import torch
import transformers

from moslora import methods, runs
from moslora.errors import ConfigError
from moslora.tasks import trainer as training
from moslora.tasks.commonsense.config import CommonsenseEvalConfig
from moslora.tasks.commonsense.evaluate import evaluate
from moslora.tasks.commonsense.model import load_finished
from moslora.tasks.commonsense.train import train
from moslora.tasks.models import trained_folder
from tests.helpers import relative_difference


@pytest.fixture(scope="module")
def config(small_config):
    return small_config


def _file(folder: Path, **settings: object) -> str:
    path = folder / "method.json"
    path.write_text(json.dumps(settings))
    return f"file:{path}"


def _weights(run: Path) -> dict[str, torch.Tensor]:
    folder = trained_folder(run, runs.read_json(run / "run.json"))
    (file,) = folder.glob("*.safetensors")
    return safetensors.torch.load_file(file)


def _interrupt(monkeypatch, config, out):
    """Let a run fail after its sixth step; checkpoints are written every fourth."""
    log = training.RunCallback.on_log

    def fail(self, args, state, control, **kwargs):
        if state.global_step == 6:
            raise KeyboardInterrupt
        log(self, args, state, control, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(training.RunCallback, "on_log", fail)
        with pytest.raises(KeyboardInterrupt):
            train(config, out)


RESUMED = ("adalora", "lora-plus", "full", "moslora-frozen", "moslora-folded", "pissa", "loha", "moslora-gradient")


@pytest.mark.parametrize("method", RESUMED)
def test_an_interrupted_run_ends_with_the_same_bits(config, tmp_path, monkeypatch, method):
    config = dataclasses.replace(config, method=method)
    straight = train(config, tmp_path / "straight")
    _interrupt(monkeypatch, config, tmp_path / "resumed")
    resumed = train(config, tmp_path / "resumed")
    assert resumed["resumed_from_steps"] == [4]
    weights, again = _weights(tmp_path / "straight"), _weights(tmp_path / "resumed")
    assert weights.keys() == again.keys()
    assert all(torch.equal(weights[key], again[key]) for key in weights)
    assert resumed["final_loss"] == straight["final_loss"]
    losses = [row["loss"] for row in runs.read_rows(tmp_path / "straight" / "metrics.jsonl")]
    assert losses[-1] < losses[0]


def test_a_run_that_was_interrupted_after_its_last_step_is_finished_as_it_was(config, tmp_path, monkeypatch):
    config = dataclasses.replace(config, method="full")
    train(config, tmp_path / "straight")
    with monkeypatch.context() as patch:
        patch.setattr("moslora.tasks.training.save_trained", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            train(config, tmp_path / "resumed")
    train(config, tmp_path / "resumed")
    weights, again = _weights(tmp_path / "straight"), _weights(tmp_path / "resumed")
    assert all(torch.equal(weights[key], again[key]) for key in weights)


def test_full_fine_tuning_leaves_a_model_folder_that_is_evaluated(config, tmp_path, questions, tiny_model):
    record = train(dataclasses.replace(config, method="full"), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == ["model"]
    assert record["parameters"]["trainable"] == record["parameters"]["total"]
    trained = load_finished(tmp_path, record, torch.float32)
    plain = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "model")
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    for (name, found), expected in zip(trained.named_parameters(), plain.parameters(), strict=True):
        assert torch.equal(found, expected), name
        assert not torch.equal(found, base.get_parameter(name)), name
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "model").eos_token == "</s>"
    scores = evaluate(CommonsenseEvalConfig(run=tmp_path, data=questions, benchmarks=("toy",), limit=4))
    assert scores["benchmarks"]["toy"]["n"] == 4


@pytest.mark.filterwarnings("ignore:init_mixer='zeros'")
@pytest.mark.parametrize("method", [name for name in methods.METHODS if name not in (*RESUMED, "moslora", "lora")])
def test_every_other_method_is_trained_saved_and_loaded(config, tmp_path, method):
    config = dataclasses.replace(config, method=method, max_steps=4)
    record = train(config, tmp_path)
    assert record["parameters"]["trainable"] > 0
    loaded = load_finished(tmp_path, record, torch.float32)
    saved = _weights(tmp_path)
    found = peft.get_peft_model_state_dict(loaded)
    assert found.keys() == saved.keys()
    assert all(torch.equal(found[key], saved[key]) for key in saved)
    assert (tmp_path / "lora").is_dir() == (method not in ("lokr", "loha", "adalora"))


def test_gradient_accumulation_does_not_change_what_adalora_learns(config, tmp_path):
    whole = dataclasses.replace(config, method="adalora", dropout=0.0, micro_batch_size=8, max_steps=4)
    train(whole, tmp_path / "whole")
    train(dataclasses.replace(whole, micro_batch_size=2), tmp_path / "parts")
    weights, parts = _weights(tmp_path / "whole"), _weights(tmp_path / "parts")
    assert max(relative_difference(parts[key], weights[key]) for key in weights) < 1e-4


def test_an_adalora_that_takes_ranks_away_begins_again_when_interrupted(config, tmp_path, monkeypatch):
    settings = {"peft_type": "ADALORA", "init_r": 4, "target_r": 2, "tfinal": 4, "total_step": 1000, "r": 8}
    method = _file(tmp_path, **settings, target_modules=["q_proj", "v_proj"], lora_alpha=8)
    config = dataclasses.replace(config, method=method)
    straight = train(config, tmp_path / "straight")
    saved = _weights(tmp_path / "straight")
    ranks = [value.shape[0] for key, value in saved.items() if key.endswith("lora_E")]
    assert sum(ranks) == 2 * len(ranks)
    assert not any((tmp_path / "straight").glob("checkpoints/*"))
    loaded = load_finished(tmp_path / "straight", straight, torch.float32)
    assert torch.equal(peft.get_peft_model_state_dict(loaded)[next(iter(saved))], next(iter(saved.values())))

    _interrupt(monkeypatch, config, tmp_path / "resumed")
    resumed = train(config, tmp_path / "resumed")
    again = _weights(tmp_path / "resumed")
    assert all(torch.equal(saved[key], again[key]) for key in saved)
    assert resumed["final_loss"] == straight["final_loss"]
    with pytest.raises(ConfigError, match="keep_best"):
        train(dataclasses.replace(config, validation_size=8, keep_best=True), tmp_path / "best")
    with pytest.raises(ConfigError, match="leave no step of 4"):
        train(dataclasses.replace(config, max_steps=4), tmp_path / "short")


def test_a_changed_method_file_is_another_run(config, tmp_path, monkeypatch):
    method = _file(tmp_path, peft_type="LORA", r=4, target_modules=["q_proj"])
    config = dataclasses.replace(config, method=method)
    _interrupt(monkeypatch, config, tmp_path / "run")
    _file(tmp_path, peft_type="LORA", r=8, target_modules=["q_proj"])
    with pytest.raises(runs.RunError, match="method"):
        train(config, tmp_path / "run")


def test_a_matched_run_has_the_parameters_of_the_other_method(config, tmp_path):
    config = dataclasses.replace(config, max_steps=2, rank=6, alpha=12)
    lora = train(dataclasses.replace(config, method="lora"), tmp_path / "lora")
    loha = train(dataclasses.replace(config, method="loha", match="lora"), tmp_path / "loha")
    assert loha["matched"] == {"method": "lora", "rank": 3, "alpha": 6.0}
    assert loha["parameters"]["trainable"] == lora["parameters"]["trainable"]
    assert loha["config"]["rank"] == 6
