"""Activations that are rebuilt in the backward pass instead of kept."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from moslora.ops import mixed_lora
from moslora.ops.rebuild import find_recipe, rebuild


class Norm(nn.Module):
    """RMSNorm as transformers writes it for Llama."""

    def __init__(self, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.rand(size).to(dtype), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        dtype = x.dtype
        x = x.float()
        x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)
        return self.weight * x.to(dtype)


def _leaf(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype).requires_grad_()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_swiglu_and_norm_are_rebuilt_to_the_bit(dtype):
    swiglu = functional.silu(_leaf(4, 8, dtype=dtype)) * _leaf(4, 8, dtype=dtype, seed=1)
    norm = Norm(8, dtype)(_leaf(4, 8, dtype=dtype) * 2)
    for x in (swiglu, norm):
        recipe = find_recipe(x)
        assert recipe is not None
        assert torch.equal(rebuild(recipe), x)


def test_other_forms_are_kept():
    leaf = _leaf(4, 8)
    assert find_recipe(leaf) is None
    assert find_recipe(leaf.relu()) is None
    assert find_recipe(functional.linear(leaf, _leaf(3, 8))) is None
    assert find_recipe((leaf * 2).detach()) is None


def test_an_active_hook_means_that_x_is_kept():
    x = functional.silu(_leaf(4, 8)) * _leaf(4, 8, seed=1)
    with torch.autograd.graph.save_on_cpu():
        assert find_recipe(x) is None
    assert find_recipe(x) is not None


@pytest.mark.parametrize("p", [0.0, 0.2])
@pytest.mark.parametrize("checkpointing", [None, True, False])
def test_gradients_are_those_of_a_kept_x_to_the_bit(p, checkpointing):
    """`checkpointing` is use_reentrant of torch's gradient checkpointing, or None for none."""
    from torch.utils.checkpoint import checkpoint

    norm, gate, up, down = Norm(16, torch.float32), *(nn.Linear(16, 16).requires_grad_(False) for _ in range(3))
    factors = [(_leaf(4, 16, seed=i), _leaf(4, 4, seed=i + 10), _leaf(16, 4, seed=i + 20)) for i in range(3)]

    def block(x: Tensor, kernel: str) -> Tensor:
        x = norm(x)
        left, right = (
            mixed_lora(x, layer, *each, 0.5, p, kernel=kernel) for layer, each in ((gate, factors[0]), (up, factors[1]))
        )
        return mixed_lora(functional.silu(left) * right, down, *factors[2], 0.5, p, kernel=kernel)

    found = {}
    for kernel in ("fused", "remat"):
        x = _leaf(64, 16)
        torch.manual_seed(0)
        run = block if checkpointing is None else lambda *a: checkpoint(block, *a, use_reentrant=checkpointing)
        y = run(x * 1.5, kernel)
        leaves = [x, *(tensor for each in factors for tensor in each)]
        y.square().sum().backward()
        found[kernel] = [leaf.grad.clone() for leaf in leaves]
        for leaf in leaves:
            leaf.grad = None
    assert all(torch.equal(*pair) for pair in zip(found["fused"], found["remat"], strict=True))


def test_a_second_backward_pass_through_a_kept_graph():
    x = functional.silu(_leaf(64, 8)) * _leaf(64, 8, seed=1)
    A, B = _leaf(2, 8, seed=2), _leaf(5, 2, seed=3)
    layer = nn.Linear(8, 5).requires_grad_(False)
    y = mixed_lora(x, layer, A, None, B, 1.0, kernel="remat").sum()
    first = torch.autograd.grad(y, [A, B], retain_graph=True)
    second = torch.autograd.grad(y, [A, B])
    assert all(torch.equal(*pair) for pair in zip(first, second, strict=True))


def test_nothing_of_the_size_of_x_is_kept():
    gate, up = _leaf(64, 32), _leaf(64, 32, seed=1)
    x = functional.silu(gate) * up
    layer = nn.Linear(32, 32).requires_grad_(False)
    A, M, B = _leaf(2, 32, seed=2), _leaf(2, 2, seed=4), _leaf(32, 2, seed=3)
    y = mixed_lora(x, layer, A, M, B, 1.0, 0.1, kernel="remat")
    assert max(tensor.numel() for tensor in y.grad_fn.saved_tensors if tensor is not None) == 64 * 2
    y = mixed_lora(x, layer, A, M, B, 1.0, 0.1, kernel="fused")
    assert y.grad_fn.saved_tensors[0].data_ptr() == x.data_ptr()
