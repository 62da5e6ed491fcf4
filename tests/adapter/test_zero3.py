"""ZeRO-3 of DeepSpeed over two processes on a CPU: every parameter is taken apart outside its own module's call."""

import importlib.util
import os
import subprocess
import sys

import pytest

from tests.helpers import ROOT

TRAIN = """
import sys, deepspeed, torch
sys.path.insert(0, sys.argv[1])
from moslora import UnsupportedError
from moslora.adapter import kernels_used
from tests.adapter.test_kernels import IDS, adapted

deepspeed.init_distributed("gloo")
rank = torch.distributed.get_rank()

def trained(model):
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

def start(kernel):
    model = adapted(kernel, lora_dropout=0.0)
    return model, torch.optim.SGD(trained(model).values(), lr=0.1)

def sharded(kernel):
    model, optimizer = start(kernel)
    # A threshold of 0 takes the smallest parameter apart, too.
    zero = {"stage": 3, "stage3_param_persistence_threshold": 0}
    config = {"train_micro_batch_size_per_gpu": 2, "zero_optimization": zero, "zero_allow_untested_optimizer": True}
    engine, *_ = deepspeed.initialize(model=model, optimizer=optimizer, config=config)
    assert all(parameter.numel() == 0 for parameter in model.parameters())
    return engine

one, optimizer = start("reference")
before = {name: parameter.detach().clone() for name, parameter in trained(one).items()}
engine = sharded("auto")
mine = IDS[2 * rank : 2 * rank + 2]
for _ in range(3):
    expected = one(input_ids=IDS, labels=IDS).loss
    expected.backward()
    optimizer.step()
    optimizer.zero_grad()
    loss = engine(input_ids=mine, labels=mine).loss
    engine.backward(loss)
    engine.step()
    mean = loss.detach().clone()
    torch.distributed.all_reduce(mean)
    assert abs(mean / 2 - expected.detach()) < 1e-6 * expected.detach(), (mean / 2, expected)

assert kernels_used(engine.module) == {"peft": 14}
worst = 0
for name, parameter in trained(engine.module).items():
    with deepspeed.zero.GatheredParameters([parameter]):
        wanted = trained(one)[name].detach()
        assert (wanted - before[name]).abs().max() > 1e-4 * wanted.abs().max(), name
        worst = max(worst, float((parameter.detach() - wanted).abs().max() / wanted.abs().max()))
assert worst < 1e-6, worst

try:
    sharded("fused")(input_ids=mine, labels=mine)
except UnsupportedError as error:
    assert "sharded parameters" in str(error), error
    print("agrees with one process, and fused says why not")
torch.distributed.destroy_process_group()
"""


@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is None,
    reason="needs DeepSpeed, which is in no extra: `DS_BUILD_OPS=0 pip install deepspeed==0.19.8`",
)
def test_auto_falls_back_and_trains_as_one_process_does_and_fused_is_refused(tmp_path):
    script = tmp_path / "train.py"
    script.write_text(TRAIN)
    words = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "DS_ACCELERATOR": "cpu",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    done = subprocess.run(
        [*words, str(script), str(ROOT)], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("agrees with one process, and fused says why not") == 2
