"""Other programs run the results and agree with PyTorch. Optional: each is skipped, with the reason, if not there.

mlx-lm, Apple's library, also runs on a CPU. In an environment of its own:

    python -m venv mlx && mlx/bin/pip install 'mlx[cpu]' mlx-lm
    MOSLORA_MLX_PYTHON=mlx/bin/python pytest tests/checkpoint/test_clients.py

Without the variable the test looks for mlx_lm in the environment that runs the tests.
"""

import json
import os
import subprocess
import sys

import numpy
import pytest
import torch

from moslora.checkpoint import export_adapter, load_adapter, merge_adapter
from tests.checkpoint.adapters import adapt
from tests.helpers import tiny_llama

RUN_IN_MLX = """
import sys
import mlx.core as mx
import numpy
from mlx_lm.utils import load_adapters, load_model
from pathlib import Path
folder, adapter, words, out = sys.argv[1:]
mx.set_default_device(mx.cpu)
model, _ = load_model(Path(folder))
if adapter:
    model = load_adapters(model, adapter)
logits = model(mx.array(numpy.load(words)))
numpy.save(out, numpy.array(logits.astype(mx.float32)))
"""


@pytest.fixture(scope="module")
def mlx_python():
    python = os.environ.get("MOSLORA_MLX_PYTHON", sys.executable)
    found = subprocess.run([python, "-c", "import mlx_lm"], capture_output=True, check=False)
    if found.returncode:
        pytest.skip(f"mlx_lm cannot be imported by {python}: set MOSLORA_MLX_PYTHON, see the top of this file")
    return python


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small Llama and an adapter of some training steps, on the disk; and what PyTorch says with both."""
    root = tmp_path_factory.mktemp("mlx")
    base = tiny_llama(hidden_size=64, intermediate_size=96)
    base.save_pretrained(root / "base")
    names = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
    words = torch.randint(0, 64, (2, 12), generator=torch.Generator().manual_seed(0))
    model = adapt(base, root / "adapter", std=0.1, target_modules=names, r=8, lora_alpha=16)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    for _ in range(10):
        optimizer.zero_grad()
        model(input_ids=words, labels=words).loss.backward()
        optimizer.step()
    model.save_pretrained(root / "adapter")
    numpy.save(root / "words.npy", words.numpy())
    with torch.no_grad():
        return root, model(words).logits.numpy(), tiny_llama(hidden_size=64, intermediate_size=96)(words).logits.numpy()


def write_mlx_adapter(lora, out):
    """An adapter as mlx-lm saves its own: factors transposed, the scale of all layers in the config."""
    import safetensors.torch

    layers = load_adapter(lora).layers
    tensors = {}
    for name, layer in layers.items():
        tensors[f"{name}.lora_a"] = layer.A.T.contiguous()
        tensors[f"{name}.lora_b"] = layer.B.T.contiguous()
    out.mkdir()
    safetensors.torch.save_file(tensors, out / "adapters.safetensors")
    keys = sorted({name.split(".", 3)[3] for name in layers})
    settings = {"rank": 8, "scale": 2.0, "dropout": 0.0, "keys": keys}
    config = {"fine_tune_type": "lora", "num_layers": -1, "lora_parameters": settings}
    (out / "adapter_config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("way", ["merged", "adapter"])
def test_mlx_lm_agrees_with_pytorch(way, trained, mlx_python, tmp_path):
    root, expected, plain = trained
    folder, adapter = root / "base", ""
    if way == "merged":
        folder = tmp_path / "merged"
        merge_adapter(root / "adapter", folder, base=root / "base")
    else:
        export_adapter(root / "adapter", tmp_path / "lora")
        adapter = tmp_path / "mlx"
        write_mlx_adapter(tmp_path / "lora", adapter)
    words = [mlx_python, "-c", RUN_IN_MLX, folder, adapter, root / "words.npy", tmp_path / "logits.npy"]
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = numpy.load(tmp_path / "logits.npy")
    difference = abs(found - expected).max() / abs(expected).max()
    print(f"mlx-lm, {way}: largest relative difference of the logits {difference:.1e}")
    assert difference < 1e-4
    assert (found.argmax(-1) == expected.argmax(-1)).all()
    assert abs(plain - expected).max() / abs(expected).max() > 0.1, "the adapter does nothing, so nothing was tested"
