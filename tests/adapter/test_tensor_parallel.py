"""Adapters on a model that transformers' tensor parallelism has cut in two, as PEFT's plain LoRA works there."""

import os
import subprocess
import sys

from peft import LoraConfig, get_peft_model

from moslora import MosLoraConfig
from tests.helpers import ROOT, randomize_adapters, tiny_llama

TARGETS = ["q_proj", "o_proj", "up_proj", "down_proj"]  # cut by rows of the weight, and by columns
CONFIGS = {
    "lora": LoraConfig(r=4, target_modules=TARGETS),
    "moslora": MosLoraConfig(r=4, target_modules=TARGETS),
    "butterfly": MosLoraConfig(r=4, target_modules=TARGETS, mixer="butterfly"),
}

PARALLEL = """
import sys, torch
import torch.distributed as dist
from pathlib import Path
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch.distributed.tensor import DTensor
from transformers import AutoModelForCausalLM
from moslora import MosLoraConfig

dist.init_process_group("gloo")
folder, rank = Path(sys.argv[1]), dist.get_rank()
ids = torch.arange(24).reshape(2, 12)

def whole(tensor):
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor

with torch.no_grad():
    for name in sys.argv[2:]:
        expected = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder / "base"), folder / name)(ids)
        cut = AutoModelForCausalLM.from_pretrained(folder / "base", tp_plan="auto")
        model = PeftModel.from_pretrained(cut, folder / name)
        assert sum(isinstance(p, DTensor) for n, p in model.named_parameters() if ".lora_" in n) == 8
        error = (whole(model(ids).logits) - expected.logits).abs().max() / expected.logits.abs().max()
        assert error < 2e-6, (name, error)
        model.save_pretrained(folder / f"{name}-{rank}")
        files = [load_file(folder / each / "adapter_model.safetensors") for each in (name, f"{name}-{rank}")]
        assert files[0].keys() == files[1].keys()
        assert all(torch.equal(files[0][key], files[1][key]) for key in files[0])
    torch.manual_seed(rank)  # processes that would draw different mixers
    cut = AutoModelForCausalLM.from_pretrained(folder / "base", tp_plan="auto")
    fresh = get_peft_model(cut, MosLoraConfig(r=4, target_modules=["q_proj", "o_proj"]))
    mixers = [parameter for key, parameter in fresh.named_parameters() if "mixer" in key]
    assert len(mixers) == 4
    for mixer in mixers:
        first = mixer.detach().clone()
        dist.broadcast(first, 0)
        assert torch.equal(first, mixer)
print("as on one device")
dist.barrier()
dist.destroy_process_group()
"""


def test_an_adapter_computes_and_saves_as_on_one_device(tmp_path):
    tiny_llama(num_key_value_heads=4).save_pretrained(tmp_path / "base")
    for name, config in CONFIGS.items():
        model = get_peft_model(tiny_llama(num_key_value_heads=4), config)
        randomize_adapters(model)
        model.save_pretrained(tmp_path / name)
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL)
    words = [sys.executable, "-W", "ignore", "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), *sys.path])}
    done = subprocess.run(
        [*words, str(script), str(tmp_path), *CONFIGS], capture_output=True, text=True, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.count("as on one device") == 2
