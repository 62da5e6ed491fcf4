"""Which tier runs where, and that it agrees there."""

import pytest
import torch
from torch import nn
from torch.nn import functional

from moslora.errors import ConfigError, UnsupportedError
from moslora.ops import VARIABLE, choose_tier, mixed_lora


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return nn.Linear(16, 12).requires_grad_(False)


@pytest.fixture
def factors():
    draw = torch.Generator().manual_seed(0)
    return tuple(torch.randn(shape, generator=draw).requires_grad_() for shape in ((4, 16), (4, 4), (12, 4)))


X = torch.randn(128, 16, generator=torch.Generator().manual_seed(1))


def test_the_tier_follows_shape_and_layer(layer):
    assert choose_tier(X, layer, "auto") == "linear"
    assert choose_tier(X[:8], layer, "auto") == "reference"
    assert choose_tier(X[:8], layer, "fused") == "linear"
    assert choose_tier(X, layer(X), "auto") == "adapter"
    assert choose_tier(X, layer, "reference") == "reference"
    assert choose_tier(X.bfloat16(), layer, "auto") == "adapter"
    with torch.autocast("cpu", torch.bfloat16):
        assert choose_tier(X, layer, "auto") == "adapter"
    layer.requires_grad_()
    assert choose_tier(X, layer, "auto") == "adapter"


def test_a_base_that_is_trained_gets_its_gradient(layer, factors):
    layer.requires_grad_()
    found = {}
    for kernel in ("reference", "fused"):
        y = mixed_lora(X, layer, *factors, 2.0, kernel=kernel)
        found[kernel] = torch.autograd.grad(y.square().sum(), [layer.weight, layer.bias, *factors])
    for pair in zip(*found.values(), strict=True):
        assert torch.allclose(*pair, rtol=1e-4, atol=1e-4)


def test_the_environment_variable_wins(layer, factors, monkeypatch):
    monkeypatch.setenv(VARIABLE, "reference")
    assert "Function" not in type(mixed_lora(X, layer, *factors, 1.0, kernel="fused").grad_fn).__name__
    monkeypatch.setenv(VARIABLE, "fastest")
    with pytest.raises(ConfigError, match="no kernel 'fastest'"):
        mixed_lora(X, layer, *factors, 1.0)


def test_under_func_transforms_the_plain_path_runs(layer, factors):
    A, M, B = factors

    def loss(A, kernel="auto"):
        return mixed_lora(X, layer, A, M, B, 1.0, kernel=kernel).square().sum()

    expected = torch.autograd.grad(loss(A), A)[0]
    assert torch.allclose(torch.func.grad(loss)(A), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(UnsupportedError, match=r"torch\.func"):
        torch.func.grad(lambda A: loss(A, "fused"))(A)
    rows = torch.func.vmap(lambda x: mixed_lora(x, layer, A, M, B, 1.0))(X.reshape(4, 32, 16))
    assert torch.allclose(rows.reshape(128, 12), mixed_lora(X, layer, A, M, B, 1.0), atol=1e-5)


@pytest.mark.parametrize("p", [0.0, 0.1])
def test_under_compile_the_plain_path_runs_in_one_graph(layer, factors, p):
    def step(x):
        return mixed_lora(x, layer, *factors, 1.0, p)

    compiled = torch.compile(step, backend="aot_eager", fullgraph=True)
    torch.manual_seed(0)
    y = compiled(X)
    assert y.shape == (128, 12)
    if not p:
        assert torch.allclose(y, step(X), atol=1e-5)


def test_conv1d_of_transformers_and_quantised_like_layers_use_the_adapter_tier(factors):
    from transformers.pytorch_utils import Conv1D

    base = Conv1D(12, 16).requires_grad_(False)
    assert choose_tier(X, base, "auto") == "adapter"
    found = {k: mixed_lora(X, base, *factors, 1.0, kernel=k) for k in ("reference", "fused")}
    assert torch.allclose(found["reference"], found["fused"], atol=1e-5)


def test_a_hook_on_the_base_layer_runs(layer, factors):
    seen = []
    layer.register_forward_hook(lambda *_: seen.append(1))
    mixed_lora(X, layer, *factors, 1.0)
    assert seen == [1]


def test_masks_of_two_layers_differ(layer):
    A, B = torch.eye(16)[:12], torch.eye(12)
    torch.manual_seed(0)
    first, second = (mixed_lora(torch.ones_like(X), layer, A, None, B, 1.0, 0.5) for _ in range(2))
    base = functional.linear(torch.ones_like(X), layer.weight, layer.bias)
    assert ((first - base).abs() < 1e-5).float().mean() == pytest.approx(0.5, abs=0.05)
    assert not torch.equal(first, second)
