"""Runs that start from an adapter, a mix above all: what may change and what stays to the bit."""

import json

import pytest
import safetensors.torch
import torch

from moslora.checkpoint import load_adapter, mix_adapters
from moslora.errors import CheckpointError, ConfigError
from moslora.tasks.subject.config import SubjectGenerateConfig
from moslora.tasks.subject.estimate import estimate
from moslora.tasks.subject.generate import generate
from moslora.tasks.subject.loop import Loop
from moslora.tasks.subject.train import train
from tests.helpers import data_folder
from tests.tasks.subject.conftest import settings


@pytest.fixture(scope="module")
def mixed(trained, sdxl, tmp_path_factory):
    """A dog and a cat, mixed."""
    root = tmp_path_factory.mktemp("mix")
    train(settings(sdxl, data_folder("dreambooth") / "cat", prompt="a photo of zwx cat", seed=1, rank=2), root / "cat")
    mix_adapters([trained / "adapter", root / "cat" / "adapter"], root / "mixed", weights=[0.7, 0.5])
    return root / "mixed"


def blocks_only(sdxl, photographs, mixed, **changes):
    return settings(
        sdxl, photographs, start_from=str(mixed), train="mixer-blocks", weight_decay=0.1, save_steps=2, **changes
    )


def tensors(folder):
    return safetensors.torch.load_file(folder / "adapter_model.safetensors")


def test_only_the_blocks_between_the_adapters_are_trained(mixed, sdxl, photographs, tmp_path):
    record = train(blocks_only(sdxl, photographs, mixed), tmp_path / "run")
    before, after = tensors(mixed), tensors(tmp_path / "run" / "adapter")
    assert before.keys() == after.keys()
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed
    assert all(key.endswith("lora_A.mixer") for key in changed)
    for key in changed:
        M, N = before[key], after[key]
        assert M.shape == (6, 6)
        assert torch.equal(M[:4, :4], N[:4, :4])
        assert torch.equal(M[4:, 4:], N[4:, 4:])
        assert (N[:4, 4:] != 0).all()
        assert (N[4:, :4] != 0).all()
    mixers = sum(key.endswith("lora_A.mixer") for key in before)
    assert record["parameters"]["trainable"] == mixers * 2 * 4 * 2
    assert record["inputs"]["start_from"]["files"].keys() == {
        "adapter_config.json",
        "adapter_model.safetensors",
        "mix.json",
    }
    [(folder, count)] = generate(SubjectGenerateConfig(run=(tmp_path / "run",), limit=1, seeds=(0,), steps=2)).items()
    assert (folder, count) == (tmp_path / "run" / "images", 1)


def test_an_interrupted_run_ends_with_the_same_bits(mixed, sdxl, photographs, tmp_path, monkeypatch):
    train(blocks_only(sdxl, photographs, mixed), tmp_path / "whole")
    step = Loop._step

    def stopping(self, number):
        if number == 3:
            raise KeyboardInterrupt
        return step(self, number)

    with monkeypatch.context() as patch:
        patch.setattr(Loop, "_step", stopping)
        with pytest.raises(KeyboardInterrupt):
            train(blocks_only(sdxl, photographs, mixed), tmp_path / "torn")
    train(blocks_only(sdxl, photographs, mixed), tmp_path / "torn")
    whole, torn = tensors(tmp_path / "whole" / "adapter"), tensors(tmp_path / "torn" / "adapter")
    assert all(torch.equal(whole[key], torn[key]) for key in whole)


def test_without_more_words_the_whole_adapter_goes_on(mixed, sdxl, photographs, tmp_path):
    train(settings(sdxl, photographs, start_from=str(mixed), max_steps=2), tmp_path / "run")
    before, after = tensors(mixed), tensors(tmp_path / "run" / "adapter")
    assert all(not torch.equal(before[key], after[key]) for key in before)
    assert load_adapter(tmp_path / "run" / "adapter").config["r"] == 6
    config = json.loads((tmp_path / "run" / "run.json").read_text())["config"]
    assert config["start_from"] == str(mixed)


def test_what_cannot_be_started_from_is_refused(trained, mixed, sdxl, photographs, tmp_path):
    cases = (
        ({"train": "mixer-blocks"}, ConfigError, "train is mixer-blocks: name the folder"),
        ({"start_from": str(tmp_path / "none")}, ConfigError, "there is no such folder"),
        ({"start_from": str(mixed), "train_text_encoders": True}, ConfigError, "leave train_text_encoders out"),
        ({"start_from": str(trained / "adapter"), "train": "mixer-blocks"}, CheckpointError, r"found no mix\.json"),
        ({"start_from": str(tmp_path)}, ConfigError, "does not fit the unet"),
    )
    for number, (changes, error, message) in enumerate(cases):
        with pytest.raises(error, match=message):
            train(settings(sdxl, photographs, **changes), tmp_path / f"run-{number}")


def test_a_dry_run_does_not_pretend_to_know_the_adapter(mixed, sdxl, photographs):
    with pytest.raises(ConfigError, match="leave start_from out"):
        estimate(settings(sdxl, photographs, start_from=str(mixed)))
