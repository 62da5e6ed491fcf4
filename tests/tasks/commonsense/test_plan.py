"""Plans: the numbers of `estimate`, and micro-batches that really are the largest."""

import dataclasses

import pytest
import transformers

from moslora.cli import main
from moslora.errors import ConfigError
from moslora.tasks.commonsense.attach import attach_adapter
from moslora.tasks.commonsense.config import CommonsenseTrainConfig
from moslora.tasks.commonsense.estimate import EmptyRun, estimate
from moslora.tasks.commonsense.plan import GIB, largest_micro_batch, plan


@pytest.fixture
def config(tiny_model):
    return CommonsenseTrainConfig(model=str(tiny_model), max_tokens=64, rank=4, alpha=8)


def _plan(config, **changes):
    return plan(config, **{"gpus": 1, "gpu_memory": 0.05, "reserve": 0.0} | changes)


def test_every_arm_has_the_numbers_of_estimate(config):
    found = _plan(config)
    assert [(arm.kernel, arm.gradient_checkpointing) for arm in found.arms] == [
        (kernel, again) for kernel in ("reference", "fused", "remat") for again in (False, True)
    ]
    for arm in found.arms:
        same = dataclasses.replace(
            config, dtype="bfloat16", kernel=arm.kernel, gradient_checkpointing=arm.gradient_checkpointing
        )
        assert arm.numbers == estimate(same)


def test_the_next_micro_batch_does_not_fit(config):
    found = _plan(config)
    for arm in found.arms:
        run = EmptyRun(dataclasses.replace(config, dtype="bfloat16", kernel=arm.kernel))
        here, next_ = (
            run.estimate(arm.largest_micro_batch + more, arm.gradient_checkpointing).bytes for more in (0, 1)
        )
        assert here <= found.limit_bytes == int(0.05 * GIB) < next_
    kept = {arm.kernel: arm.largest_micro_batch for arm in found.arms if not arm.gradient_checkpointing}
    assert kept["reference"] < kept["fused"] < kept["remat"]


def test_a_limit_to_the_byte_is_met_to_the_byte(config):
    run = EmptyRun(config)
    exact = run.estimate(5, False).bytes
    assert largest_micro_batch(run, False, exact) == 5
    assert largest_micro_batch(run, False, exact - 1) == 4
    assert largest_micro_batch(run, False, run.estimate(1, False).bytes - 1) == 0


def test_kinds_of_modules_add_up(config):
    found = _plan(config)
    by_name = {kind.name: kind for kind in found.kinds}
    # hidden 32, two layers, rank 4: A, M and B of q_proj; down_proj comes from 48.
    assert (by_name["q_proj"].modules, by_name["q_proj"].trainable) == (2, 2 * (4 * 32 + 16 + 32 * 4))
    assert by_name["down_proj"].trainable == 2 * (4 * 48 + 16 + 32 * 4)
    assert sum(kind.trainable for kind in found.kinds) == found.arms[0].numbers.trainable


@pytest.mark.parametrize("method", ["lora", "moslora-frozen", "loha", "adalora", "full"])
def test_methods_without_a_kernel_and_full_fine_tuning_are_planned(config, method):
    found = _plan(dataclasses.replace(config, method=method))
    assert sum(kind.trainable for kind in found.kinds) == found.arms[0].numbers.trainable
    if method == "full":
        assert found.saved_bytes == found.arms[0].numbers.weight_bytes


@pytest.mark.parametrize("method", ["moslora", "moslora-frozen", "ts-mixing"])
def test_the_size_on_disk_is_that_of_the_file(config, tmp_path, method):
    config = dataclasses.replace(config, method=method)
    base = transformers.AutoModelForCausalLM.from_pretrained(config.model)
    attach_adapter(base, config).save_pretrained(tmp_path)
    header = int.from_bytes((tmp_path / "adapter_model.safetensors").read_bytes()[:8], "little")
    real = (tmp_path / "adapter_model.safetensors").stat().st_size - header - 8
    assert _plan(config).saved_bytes == real


def test_more_cards_split_the_batch_and_copy_the_weights(config):
    one, four = _plan(config), _plan(config, gpus=4)
    assert [arm.numbers for arm in one.arms] == [arm.numbers for arm in four.arms]
    assert {arm.usable_micro_batch for arm in one.arms} == {16}
    assert {arm.usable_micro_batch for arm in four.arms} == {4}


def test_settings_that_cannot_be_are_all_named(config, monkeypatch):
    monkeypatch.setenv("MOSLORA_KERNEL", "fused")
    with pytest.raises(ConfigError, match=r"gpus 3 x micro_batch_size 4(.|\n)*reserve is 2(.|\n)*MOSLORA_KERNEL"):
        _plan(config, gpus=3, gpu_memory=1.0, reserve=2.0)


def test_the_command_prints_the_plan(config, capsys):
    words = ["plan", config.model, "--method", "moslora", "--rank", "4", "--max-tokens", "64", "--gpu-memory", "1.05"]
    assert main([*words, "--gradient-checkpointing"]) == 0
    printed = capsys.readouterr().out
    assert "q_proj" in printed
    assert "remat" in printed
    assert "sharding is not estimated" in printed
