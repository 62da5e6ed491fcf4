"""Runs triton_cases.py in a process of its own, since Triton reads TRITON_INTERPRET once, at its import."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from moslora.ops import autograd, eager, mixed_lora

CASES = Path(__file__).with_name("triton_cases.py")
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="Triton is not installed: pip install 'moslora[triton]'"
)


def run_cases(**environment: str) -> None:
    inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    result = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(CASES)],
        cwd=CASES.parents[2],
        env=inherited | environment | {autograd.TRITON_VARIABLE: "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr


@needs_triton
def test_the_kernels_in_tritons_interpreter():
    run_cases(TRITON_INTERPRET="1")


@needs_triton
@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_kernels_on_a_gpu():
    run_cases()


def test_torch_computes_on_the_cpu_without_the_interpreter(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    assert run_fused().products is eager


def test_torch_computes_where_triton_is_not_installed(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # asks for the kernels on a CPU too
    monkeypatch.setenv(autograd.TRITON_VARIABLE, "1")
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "moslora.ops.triton_kernels", raising=False)
    monkeypatch.setattr(autograd, "_triton_kernels", autograd._triton_kernels.__wrapped__)
    assert run_fused().products is eager


def run_fused():
    x, A, B = torch.ones(8, 6), torch.ones(2, 6, requires_grad=True), torch.ones(5, 2)
    return mixed_lora(x, torch.nn.Linear(6, 5).requires_grad_(False), A, None, B, 1.0, 0.1, kernel="fused").grad_fn
