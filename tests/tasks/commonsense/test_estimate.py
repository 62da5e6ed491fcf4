"""Estimates from a config alone, at the paper's size."""

import dataclasses
import json

import pytest
import torch
import transformers

from benchmarks import plan as plan_benchmark
from moslora.adapter import kernels_used
from moslora.cli import main
from moslora.errors import ConfigError
from moslora.tasks.commonsense.attach import attach_adapter
from moslora.tasks.commonsense.config import CommonsenseTrainConfig
from moslora.tasks.commonsense.estimate import estimate
from moslora.tasks.estimate import kept_bytes

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128256,
    "max_position_embeddings": 8192,
    "rope_theta": 500000.0,
    "rms_norm_eps": 1e-05,
    "tie_word_embeddings": False,
}


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A folder with the config of LLaMA-3-8B and nothing else."""
    folder = tmp_path_factory.mktemp("llama")
    (folder / "config.json").write_text(json.dumps(LLAMA_3_8B))
    return str(folder)


@pytest.mark.parametrize(
    ("method", "parameters"),
    [("lora", 28_311_552), ("ts-mixing", 28_311_552), ("moslora", 28_352_512), ("moslora-orthogonal", 28_352_512)],
)
def test_trained_parameters_of_the_paper(llama, method, parameters):
    numbers = estimate(CommonsenseTrainConfig(model=llama, method=method, dtype="bfloat16"))
    assert numbers.trainable == parameters
    assert numbers.total == 8_030_261_248


def test_dry_run_prints_them(llama, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    for method, printed in (("lora", "28,311,552"), ("moslora", "28,352,512")):
        words = ["train", "commonsense", "--recipe", "commonsense/llama3-8b", "--model", llama, "--method", method]
        assert main([*words, "--dry-run"]) == 0
        assert printed in capsys.readouterr().out


def test_memory_parts_follow_their_formulas(llama):
    config = CommonsenseTrainConfig(model=llama, dtype="bfloat16")
    numbers = estimate(config)
    assert numbers.weight_bytes == 2 * numbers.total
    assert numbers.optimizer_bytes == 8 * numbers.trainable
    assert numbers.loss_bytes == 2 * 4 * 4 * 256 * 128256
    less = estimate(dataclasses.replace(config, gradient_checkpointing=True))
    assert less.activation_bytes < numbers.activation_bytes / 4
    assert (less.weight_bytes, less.adapter_bytes) == (numbers.weight_bytes, numbers.adapter_bytes)


def test_activations_seen_on_the_meta_device_are_those_of_a_real_forward_pass(tiny_model):
    config = CommonsenseTrainConfig(
        model=str(tiny_model), dtype="float32", dropout=0.0, micro_batch_size=2, batch_size=2, max_tokens=24
    )
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="sdpa")
    real = kept_bytes(attach_adapter(base, config).train(), (2, 24))
    assert estimate(config).activation_bytes == pytest.approx(real, rel=0.1)


def _shape_and_content(tiny_model, kernel):
    """The same adapted model on the meta device and on the CPU."""
    config = CommonsenseTrainConfig(model=str(tiny_model), kernel=kernel, dropout=0.05, max_tokens=32)
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model, attn_implementation="eager")
    with torch.device("meta"):
        empty = transformers.AutoModelForCausalLM.from_config(base.config, attn_implementation="eager")
        empty = attach_adapter(empty, config)
    return empty.train(), attach_adapter(base, config).train()


@pytest.mark.parametrize("kernel", ["auto", "reference", "fused", "remat"])
def test_each_kernel_runs_and_keeps_the_same_on_the_meta_device_as_on_a_cpu(tiny_model, kernel):
    empty, real = _shape_and_content(tiny_model, kernel)
    for shape in ((2, 8), (4, 32)):  # fewer rows than the kernel "auto" takes for the fast path, and more
        assert kept_bytes(empty, shape) == kept_bytes(real, shape) > 0
        assert kernels_used(empty) == kernels_used(real)


def test_the_estimate_falls_with_remat_by_what_a_real_model_keeps_less(tiny_model):
    kept = {kernel: kept_bytes(_shape_and_content(tiny_model, kernel)[1], (4, 32)) for kernel in ("fused", "remat")}
    config = CommonsenseTrainConfig(
        model=str(tiny_model), dtype="float32", dropout=0.05, micro_batch_size=4, max_tokens=32
    )
    estimated = {k: estimate(dataclasses.replace(config, kernel=k)).activation_bytes for k in ("fused", "remat")}
    assert estimated["fused"] - estimated["remat"] == kept["fused"] - kept["remat"] > 0


def test_checkpointing_keeps_the_input_of_every_layer(llama):
    config = CommonsenseTrainConfig(model=llama, dtype="bfloat16", kernel="remat")
    checkpointed = estimate(dataclasses.replace(config, gradient_checkpointing=True)).activation_bytes
    tokens, logits = 4 * 256, 4 * 256 * 128256
    # Beside these, the norm before the head and the log-probabilities. A layer that is computed again needs less than
    # the loss did, which is gone by then.
    assert checkpointed == pytest.approx(32 * 2 * tokens * 4096 + 4 * logits, rel=0.05)


@pytest.mark.parametrize(
    ("dtype", "kernel", "checkpointing"),
    [("float32", "fused", 0), ("bfloat16", "reference", 0), ("bfloat16", "remat", 1)],
)
def test_the_estimate_is_within_a_tenth_of_the_peak_of_real_steps(dtype, kernel, checkpointing):
    """Over the weights alone, which are the same in both."""
    found = plan_benchmark.measure("llama-28m", "moslora", dtype, kernel, checkpointing, samples=1, tokens=128)
    weights = found["parts"]["weight_bytes"]
    assert found["estimated"] - weights == pytest.approx(found["measured"] - weights, rel=0.1)


def test_an_unknown_model_says_so(tmp_path):
    with pytest.raises(ConfigError, match="Cannot load a model config"):
        estimate(CommonsenseTrainConfig(model=str(tmp_path)))


def test_full_fine_tuning_trains_float32_weights(llama):
    numbers = estimate(CommonsenseTrainConfig(model=llama, method="full", dtype="bfloat16"))
    assert numbers.trainable == numbers.total == 8_030_261_248
    assert (numbers.weight_bytes, numbers.adapter_bytes) == (4 * numbers.total, 0)


@pytest.mark.parametrize("method", ["loha", "lokr", "adalora", "pissa", "moslora-dora", "moslora-frozen", "full"])
def test_a_dry_run_of_a_method_counts_what_its_training_trains(tiny_model, method):
    config = CommonsenseTrainConfig(model=str(tiny_model), method=method)
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    real = sum(each.numel() for each in attach_adapter(base, config).parameters() if each.requires_grad)
    assert estimate(config).trainable == real


def test_a_matched_rank_is_estimated(tiny_model):
    settings = {"model": str(tiny_model), "rank": 6, "alpha": 12}
    lora = estimate(CommonsenseTrainConfig(method="lora", **settings))
    assert estimate(CommonsenseTrainConfig(method="loha", match="lora", **settings)).trainable == lora.trainable
