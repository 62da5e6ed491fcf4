"""Adapted models with each kernel of moslora.ops: the same losses and gradients, or a reason why not."""

import os
import subprocess
import sys

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

import moslora.ops
from moslora import MosLoraConfig, UnsupportedError
from moslora.adapter import kernels_used
from moslora.errors import ConfigError
from moslora.ops import autograd
from tests.helpers import ROOT, randomize_adapters, relative_difference, tiny_llama

IDS = torch.randint(1, 60, (4, 32), generator=torch.Generator().manual_seed(0))


@pytest.fixture
def calls(monkeypatch):
    """How often each hand-written tier has run."""
    counts = {"adapter_only": 0, "whole_linear": 0}
    for name in counts:
        original = getattr(autograd, name)

        def counted(*args, name=name, original=original):
            counts[name] += 1
            return original(*args)

        monkeypatch.setattr(autograd, name, counted)
    return counts


def adapted(kernel: str, dtype: torch.dtype = torch.float32, **settings) -> nn.Module:
    config = MosLoraConfig(**{"r": 4, "target_modules": "all-linear", "kernel": kernel, **settings})
    model = get_peft_model(tiny_llama().to(dtype), config)
    randomize_adapters(model)
    return model.train()


def loss_and_gradients(model: nn.Module, ids: Tensor = IDS) -> dict[str, Tensor]:
    torch.manual_seed(3)
    loss = model(input_ids=ids, labels=ids).loss
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    model.zero_grad()
    loss.backward()
    return {"loss": loss.detach(), **{name: parameter.grad.clone() for name, parameter in trained.items()}}


@pytest.mark.parametrize("mixer", ["learnable", "butterfly", "identity"])
@pytest.mark.parametrize("kernel", ["fused", "remat", "auto"])
def test_every_kernel_has_the_loss_and_the_gradients_of_pefts_own_code(kernel, mixer, calls):
    model = adapted("reference", mixer=mixer)
    expected = loss_and_gradients(model)
    assert sum(calls.values()) == 0
    assert kernels_used(model) == {"peft": 14}
    model = adapted(kernel, mixer=mixer)
    found = loss_and_gradients(model)
    assert calls["whole_linear"] == 14  # every linear layer of the two blocks
    assert kernels_used(model) == {"linear": 14}
    for name, value in found.items():
        assert relative_difference(value, expected[name]) < 1e-5, name


def test_dropout_is_drawn_anew_and_repeats_with_the_seed():
    model = adapted("fused", lora_dropout=0.3)
    first, again = loss_and_gradients(model), loss_and_gradients(model)
    assert all(torch.equal(first[name], again[name]) for name in first)
    torch.manual_seed(4)
    assert model(input_ids=IDS, labels=IDS).loss != first["loss"]
    assert torch.equal(model.eval()(IDS).logits, model(IDS).logits)


def test_dropout_has_the_mean_of_pefts_dropout():
    """Averaged over many masks, both give the layer without dropout."""
    model = adapted("fused", lora_dropout=0.2)
    layer = model.base_model.model.model.layers[0].mlp.up_proj
    x = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = layer.eval()(x)
        layer.train()
        outputs = torch.stack([layer(x) for _ in range(2000)])
    deviation = outputs.std(0) / 2000**0.5
    assert ((outputs.mean(0) - expected).abs() / deviation).max() < 6


def test_several_active_adapters_are_summed():
    found = {}
    for kernel in ("reference", "fused"):
        model = adapted(kernel)
        model.add_adapter("second", MosLoraConfig(r=2, target_modules="all-linear", mixer="butterfly", kernel=kernel))
        randomize_adapters(model, seed=5)
        model.base_model.set_adapter(["default", "second"])
        found[kernel] = loss_and_gradients(model)
    assert len(found["fused"]) == 1 + 14 * (3 + 2)
    for name, value in found["fused"].items():
        assert relative_difference(value, found["reference"][name]) < 1e-3, name


def test_disabled_and_merged_adapters_take_pefts_path(calls):
    model = adapted("fused").eval()
    with model.disable_adapter(), torch.no_grad():
        assert torch.equal(model(IDS).logits, tiny_llama()(IDS).logits)
    with torch.no_grad():
        before = model(IDS).logits
        ran = dict(calls)
        model.merge_adapter()
        assert relative_difference(model(IDS).logits, before) < 1e-4
    assert calls == ran


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"use_dora": True}, "Dora"),
        ({"lora_bias": True}, "lora_bias"),
    ],
)
def test_what_the_fast_path_cannot_do_falls_back_or_says_why(settings, reason, calls):
    expected = loss_and_gradients(adapted("reference", **settings))
    found = loss_and_gradients(adapted("auto", **settings))
    assert all(torch.equal(found[name], expected[name]) for name in found)
    assert sum(calls.values()) == 0
    with pytest.raises(UnsupportedError, match=f"kernel 'fused' cannot run.*{reason}"):
        adapted("fused", **settings)(IDS)


def test_a_hook_on_a_factor_runs():
    model = adapted("auto")
    seen = []
    model.base_model.model.model.layers[0].self_attn.q_proj.lora_A["default"].register_forward_hook(
        lambda *_: seen.append(1)
    )
    model(IDS)
    assert seen == [1]


def test_sharded_parameters_fall_back(calls):
    """As ZeRO-3 marks them: their content is there only while their own module is called."""
    model = adapted("auto")
    for parameter in model.parameters():
        parameter.ds_id = 0
    loss_and_gradients(model)
    assert sum(calls.values()) == 0


@pytest.mark.parametrize("use_reentrant", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(use_reentrant):
    expected = loss_and_gradients(adapted("remat", lora_dropout=0.2))
    model = adapted("remat", lora_dropout=0.2)
    model.enable_input_require_grads()
    model.gradient_checkpointing_enable({"use_reentrant": use_reentrant})
    found = loss_and_gradients(model)
    for name, value in found.items():
        assert relative_difference(value, expected[name]) < 1e-6, name


@pytest.mark.parametrize("autocast", [False, True])
def test_bfloat16_is_no_further_from_float32_than_twice_pefts_own_code(autocast):
    """A bfloat16 base with float32 adapters, or a float32 model under autocast."""
    dtype = torch.float32 if autocast else torch.bfloat16
    truth = loss_and_gradients(adapted("reference", dtype).float())
    errors = {}
    for kernel in ("reference", "fused", "remat"):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            found = loss_and_gradients(adapted(kernel, dtype))
        differences = [(found[name].float() - truth[name]).norm() / truth[name].norm() for name in truth]
        errors[kernel] = torch.stack(differences).square().mean().sqrt()
    assert errors["fused"] < 2 * errors["reference"]
    assert errors["remat"] == errors["fused"]


def test_conv1d_of_gpt2_uses_the_adapter_tier(calls):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.linear = Conv1D(12, 16)

        def forward(self, x):
            return self.linear(x)

    outputs = {}
    for kernel in ("reference", "fused"):
        config = MosLoraConfig(r=4, target_modules=["linear"], fan_in_fan_out=True, kernel=kernel)
        model = get_peft_model(Net(), config)
        randomize_adapters(model)
        outputs[kernel] = model(torch.ones(80, 16))
    assert calls["adapter_only"] == 1
    assert torch.allclose(outputs["reference"], outputs["fused"], atol=1e-5)


def test_compile_takes_the_plain_path_in_one_graph():
    model = adapted("auto").eval()
    with torch.no_grad():
        expected = model(IDS).logits
        compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
        assert relative_difference(compiled(IDS).logits, expected) < 1e-5


def test_an_identity_mixer_with_the_fused_kernel_learns_like_stock_lora():
    losses = {}
    for name, config in {
        "stock": LoraConfig(r=4, target_modules="all-linear"),
        "fused": MosLoraConfig(r=4, target_modules="all-linear", mixer="identity", kernel="fused"),
    }.items():
        torch.manual_seed(7)
        model = get_peft_model(tiny_llama(), config).train()
        optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
        losses[name] = []
        for _ in range(10):
            loss = model(input_ids=IDS, labels=IDS).loss
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses[name].append(loss.item())
    assert losses["fused"] == pytest.approx(losses["stock"], rel=1e-4)
    assert losses["fused"][-1] < losses["fused"][0]


DISTRIBUTED = """
import os, sys, torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
sys.path.insert(0, sys.argv[1])
from tests.adapter.test_kernels import adapted, IDS

dist.init_process_group("gloo")
rank = dist.get_rank()

def gradients(kind):
    model = adapted("auto", lora_dropout=0.0)
    if kind == "ddp":
        model = DistributedDataParallel(model)
    if kind == "fsdp2":
        for layer in model.base_model.model.model.layers:
            fully_shard(layer)
        fully_shard(model)
    ids = IDS if kind == "one" else IDS[2 * rank : 2 * rank + 2]
    model(input_ids=ids, labels=ids).loss.backward()
    found = {n.removeprefix("module."): p.grad for n, p in model.named_parameters() if p.grad is not None}
    return {n: g.full_tensor() if hasattr(g, "full_tensor") else g for n, g in found.items()}

one = gradients("one")
for kind in ("ddp", "fsdp2"):
    found = gradients(kind)
    assert found.keys() == one.keys(), kind
    worst = max(float((found[n] - one[n]).abs().max() / one[n].abs().max()) for n in one)
    assert worst < 1e-5, (kind, worst)
    if rank == 0:
        print(kind, "agrees with one process")
dist.destroy_process_group()
"""


def test_ddp_and_fsdp2_agree_with_one_process(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(DISTRIBUTED)
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [*words, str(script), str(ROOT)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("agrees with one process") == 2


def test_the_environment_variable_wins_over_the_config(monkeypatch, calls):
    monkeypatch.setenv(moslora.ops.VARIABLE, "reference")
    adapted("fused")(IDS)
    assert sum(calls.values()) == 0


def test_an_unknown_kernel_is_refused_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv(moslora.ops.VARIABLE, "reference")
    with pytest.raises(ConfigError, match="no kernel 'fastest'"):
        MosLoraConfig(kernel="fastest")
