"""What several test files need: small models of real architectures, real data, and the formula in float64."""

import dataclasses
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

ROOT = Path(__file__).parents[1]


def data_folder(name: str) -> Path:
    """A folder of the real data, or a skip that says what is missing."""
    folder = Path(os.environ.get("MOSLORA_DATA", ROOT.parent / "shared" / "data")) / name
    if not folder.is_dir():
        pytest.skip(f"real data not found at {folder}; set MOSLORA_DATA to the folder that holds {name}/")
    return folder


def run_stock_peft(script: str, *arguments: object) -> str:
    """Run a script in another process that never imports moslora; returns what it printed."""
    code = f"import sys\nargs = sys.argv[1:]\n{script}\nassert 'moslora' not in sys.modules\n"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def adapter_weights(run: Path) -> dict[str, Tensor]:
    """What a run has saved as its adapter."""
    return safetensors.torch.load_file(run / "adapter" / "adapter_model.safetensors")


def command_line(task: str, config: Any, out: Path) -> list[str]:
    """The words after `moslora` that train with exactly these settings."""
    words = ["train", task, "--out", str(out)]
    for field in dataclasses.fields(config):
        value, flag = getattr(config, field.name), field.name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        elif isinstance(value, tuple):
            words += [f"--{flag}", *value]
        else:
            words += [f"--{flag}", str(value)]
    return words


def randomize_adapters(model: nn.Module, seed: int = 0, std: float = 0.3) -> None:
    """Give every adapter parameter a random value, so that nothing is zero by initialisation."""
    draw = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if ".lora_" in name:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) * std)


def relative_difference(found: Tensor, expected: Tensor) -> float:
    """Largest absolute difference over the largest absolute value expected."""
    found, expected = found.detach().double(), expected.detach().double()
    return ((found - expected).abs().max() / expected.abs().max().clamp_min(1e-30)).item()


def tiny_llama(seed: int = 0, **overrides: int) -> nn.Module:
    """A two-layer Llama with grouped-query attention and random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 64,
        "max_position_embeddings": 64,
    }
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**(sizes | overrides))).eval()
