"""The hand-written backward passes against torch's own, in float64 and against float64."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from moslora.equation import Factors, adapter_output
from moslora.ops import dropout, mixed_lora

BASES = ("layer", "output")


def make(
    rows: tuple[int, ...] = (2, 5),
    d_in: int = 7,
    d_out: int = 6,
    r: int = 3,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(seed)
    shapes = {
        "x": (*rows, d_in),
        "A": (r, d_in),
        "M": (r, r),
        "B": (d_out, r),
        "weight": (d_out, d_in),
        "bias": (d_out,),
    }
    tensors = {
        name: torch.randn(shape, generator=draw, dtype=torch.float64).to(dtype) for name, shape in shapes.items()
    }
    for name in ("x", "A", "M", "B"):
        tensors[name].requires_grad_()
    return tensors


def frozen_linear(tensors: dict[str, Tensor]) -> nn.Linear:
    layer = nn.Linear(*reversed(tensors["weight"].shape), dtype=tensors["weight"].dtype)
    layer.weight.data, layer.bias.data = tensors["weight"], tensors["bias"]
    return layer.requires_grad_(False)


def output(tensors, base: str, p: float = 0.0, kernel: str = "fused", mixer: bool = True) -> Tensor:
    layer = frozen_linear(tensors)
    M = tensors["M"] if mixer else None
    start = layer if base == "layer" else layer(tensors["x"])
    return mixed_lora(tensors["x"], start, tensors["A"], M, tensors["B"], 2.0, p, kernel=kernel)


def gradients(tensors, y: Tensor) -> dict[str, Tensor]:
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64).to(y.dtype)
    names = [name for name in ("x", "A", "M", "B") if tensors[name].requires_grad]
    found = torch.autograd.grad(y, [tensors[name] for name in names], g, allow_unused=True)
    return dict(zip(names, found, strict=True))


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("mixer", [True, False])
def test_forward_is_the_formula(base, mixer):
    tensors = make()
    M = tensors["M"] if mixer else torch.eye(3, dtype=torch.float64)
    expected = functional.linear(tensors["x"], tensors["weight"], tensors["bias"]) + adapter_output(
        tensors["x"], Factors(tensors["A"], M, tensors["B"]), 2.0
    )
    for kernel in ("reference", "fused", "remat"):
        assert torch.allclose(output(tensors, base, kernel=kernel, mixer=mixer), expected, rtol=1e-13)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(("rows", "r"), [((2, 5), 3), ((1,), 1), ((2,), 256)])
def test_first_derivatives(base, p, rows, r):
    tensors = make(rows, d_in=4, d_out=5, r=r)

    def function(x, A, M, B):
        torch.manual_seed(0)  # the same mask in every call
        return output({**tensors, "x": x, "A": A, "M": M, "B": B}, base, p)

    inputs = tuple(tensors[name] for name in ("x", "A", "M", "B"))
    assert torch.autograd.gradcheck(function, inputs, fast_mode=r > 100)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize("mixer", [True, False])
def test_second_derivatives(base, p, mixer):
    tensors = make((2, 2), d_in=4, d_out=3, r=2)

    def function(x, A, M, B):
        torch.manual_seed(0)
        return output({**tensors, "x": x, "A": A, "M": M, "B": B}, base, p, mixer=mixer)

    if not mixer:
        tensors["M"].requires_grad_(False)
    inputs = tuple(tensors[name] for name in ("x", "A", "M", "B"))
    assert torch.autograd.gradgradcheck(function, inputs)


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("needed", [names for n in (1, 2, 3) for names in itertools.combinations("xAMB", n)])
def test_only_what_is_asked_for_gets_a_gradient(base, needed):
    tensors = make()
    expected = gradients(tensors, output(tensors, base, kernel="reference"))
    for name in "xAMB":
        tensors[name].requires_grad_(name in needed)
    found = gradients(tensors, output(tensors, base))
    assert set(found) == set(needed)
    for name, gradient in found.items():
        assert torch.allclose(gradient, expected[name], rtol=1e-12), name


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("adapter_dtype", [None, torch.float32])
def test_no_further_from_float64_than_twice_the_plain_path(base, dtype, adapter_dtype):
    exact = make((64,), d_in=96, d_out=80, r=8)
    for name, tensor in exact.items():  # what both precisions can hold
        tensor.data = tensor.data.to(dtype).double() * (0.1 if name in ("weight", "A", "B") else 1.0)
        tensor.data = tensor.data.to(dtype).double()
    truth = output(exact, base, kernel="reference")
    truths = {"y": truth, **gradients(exact, truth)}

    errors = {}
    for kernel in ("reference", "fused"):
        tensors = {
            name: tensor.detach().to(adapter_dtype if adapter_dtype and name in "AMB" else dtype)
            for name, tensor in exact.items()
        }
        for name in "xAMB":
            tensors[name].requires_grad_()
        y = output(tensors, base, kernel=kernel)
        found = {"y": y, **gradients(tensors, y)}
        errors[kernel] = {name: (found[name].double() - truths[name]).norm() / truths[name].norm() for name in found}
    floor = torch.finfo(dtype).eps / 8
    for name, error in errors["fused"].items():
        assert error <= 2 * errors["reference"][name] + floor, (name, error, errors["reference"][name])


@pytest.mark.parametrize("base", BASES)
def test_autocast_computes_in_its_dtype_and_gives_gradients_in_theirs(base):
    tensors = make((64,), d_in=32, d_out=48, r=4, dtype=torch.float32)
    found = {}
    for kernel in ("reference", "fused"):
        with torch.autocast("cpu", torch.bfloat16):
            y = output(tensors, base, kernel=kernel)
        assert y.dtype == torch.bfloat16
        found[kernel] = {"y": y, **gradients(tensors, y)}
    for name, value in found["fused"].items():
        assert value.dtype == found["reference"][name].dtype
        difference = (value - found["reference"][name]).norm() / found["reference"][name].norm()
        assert difference < 2**-7, name


@pytest.mark.parametrize("base", BASES)
def test_strided_expanded_and_empty_inputs(base):
    tensors = make((4, 6))
    layouts = {
        "strided": lambda x: x.transpose(0, 1),
        "expanded": lambda x: x[:1].expand(3, -1, -1),
        "sliced": lambda x: x[:, ::2],
        "empty": lambda x: x[:0],
        "one row": lambda x: x[0, 0],
    }
    for name, layout in layouts.items():
        results = {}
        for kernel in ("reference", "fused"):
            y = output({**tensors, "x": layout(tensors["x"])}, base, kernel=kernel)
            # The gradient of a sum is expanded from one number, and has no memory of its own.
            leaves = [tensors[key] for key in "xAMB"]
            results[kernel] = (y, *torch.autograd.grad(y.sum(), leaves))
        for found, expected in zip(results["fused"], results["reference"], strict=True):
            assert torch.allclose(found, expected, rtol=1e-12), name


@pytest.mark.parametrize("base", BASES)
def test_B_of_zeros_leaves_the_base_as_it_is_to_the_bit(base):
    for dtype in (torch.float32, torch.bfloat16):
        tensors = make((64,), d_in=32, d_out=48, r=4, dtype=dtype)
        tensors["B"].data.zero_()
        assert torch.equal(output(tensors, base, 0.1), frozen_linear(tensors)(tensors["x"]))


def test_a_dropped_infinity_is_zero():
    x = torch.full((8, 64), float("inf"))
    x[0, 0] = float("nan")
    dropped = dropout.drop(x, 0.5, seed=3)
    assert set(dropped.nan_to_num(7.0, posinf=9.0).unique().tolist()) <= {0.0, 7.0, 9.0}
    assert (dropped == 0).any()


def test_scratch_memory_is_never_read(monkeypatch):
    """`torch.empty` filled with NaN changes nothing."""
    tensors = make((8,))
    torch.manual_seed(0)
    expected = output(tensors, "layer", 0.3)
    empty = torch.empty

    def poisoned(*args, **kwargs):
        memory = empty(*args, **kwargs)
        return memory.fill_(float("nan") if memory.is_floating_point() else 77)

    monkeypatch.setattr(torch, "empty", poisoned)
    torch.manual_seed(0)
    assert torch.equal(output(tensors, "layer", 0.3), expected)
