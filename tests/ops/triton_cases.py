"""The Triton kernels against the formulas in float64. Run by test_triton.py, in Triton's interpreter or on a GPU."""

import os

import pytest
import torch
from torch import Tensor, nn

from moslora.ops import autograd, dropout, eager, mixed_lora, triton_kernels

DEVICE = torch.device("cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
SIZES = ((1, 7, 1), (130, 70, 5), (65, 200, 16), (70, 40, 100))  # T, d, r
SEED = 2**61 + 77


def draw(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(DEVICE, dtype)


def mask(T: int, d: int, p: float, seed: int = SEED) -> Tensor:
    """K, in float64."""
    ones = torch.ones(T, d, device=DEVICE)
    return (triton_kernels.drop(ones, p, seed) if p else ones).double()


def error(found: Tensor, exact: Tensor) -> float:
    assert found.shape == exact.shape
    return ((found.double() - exact).norm() / exact.norm().clamp(min=1e-30)).item()


def assert_as_accurate(found: Tensor, plain: Tensor, exact: Tensor) -> None:
    """At most twice as far from float64 as torch, beside one last place of the float32 sums.

    The interpreter rounds to 16 bits towards zero, which is another half of their last place.
    """
    assert found.dtype == plain.dtype
    truncation = torch.finfo(found.dtype).eps / 2 if found.dtype.itemsize == 2 else 0.0
    allowed = 2 * error(plain, exact) + torch.finfo(torch.float32).eps + truncation
    assert error(found, exact) <= allowed


# The mask


@pytest.mark.parametrize("p", [0.05, 0.5])
def test_share_and_expectation_of_the_mask(p):
    K = mask(300, 500, p)
    assert set(K.unique().tolist()) == {0.0, 1.0}
    deviation = (p * (1 - p) / K.numel()) ** 0.5
    assert abs(K.mean().item() - (1 - p)) < 4 * deviation
    assert abs(K.mean().item() * dropout.keep_scale(p) - 1) < 4 * deviation / (1 - p)


@pytest.mark.parametrize("other", [SEED + 1, SEED + 2**32, SEED % 2**32])
def test_masks_of_two_seeds_are_independent(other):
    assert_independent(mask(256, 256, 0.3), mask(256, 256, 0.3, other))


@pytest.mark.parametrize("distance", [1, 2, 4, 8, 32, 64])
def test_rows_and_columns_of_a_mask_are_independent(distance):
    K = mask(256, 256, 0.3)
    assert_independent(K[distance:], K[:-distance])
    assert_independent(K[:, distance:], K[:, :-distance])
    assert_independent(K, K.T)


def assert_independent(left: Tensor, right: Tensor) -> None:
    correlation = torch.corrcoef(torch.stack([left.flatten(), right.flatten()]))[0, 1].item()
    assert abs(correlation) < 4.5 / left.numel() ** 0.5


@pytest.mark.parametrize("dtype", DTYPES)
def test_all_kernels_draw_one_mask(dtype):
    T, d, p = 100, 61, 0.3
    K = mask(T, d, p)
    ones = torch.ones(T, d, dtype=dtype, device=DEVICE)
    column, row = ones[:, :1], ones[:1]
    assert torch.equal(triton_kernels.drop(ones, p, SEED).double(), K)
    assert torch.equal(triton_kernels.down_projection(ones, torch.eye(d).to(ones), p, SEED).double(), K)
    assert torch.equal(triton_kernels.A_gradient(torch.eye(T).to(ones), ones, p, SEED).double(), K)
    assert torch.equal(triton_kernels.x_gradient(column, row, p, SEED, dtype).double(), K)
    base = triton_kernels.x_gradient(column, row, p, SEED, dtype, column, row)
    assert torch.equal(base.double(), K + 1)


def test_a_dropped_infinity_or_nan_is_zero():
    x = torch.full((8, 64), float("inf"), device=DEVICE)
    x[::2] = float("nan")
    dropped = triton_kernels.drop(x, 0.5, SEED)
    assert torch.equal((dropped != 0).double(), mask(8, 64, 0.5))


# The products


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(("T", "d", "r"), SIZES)
def test_products_with_x(T, d, r, p, dtype):
    K = mask(T, d, p)
    x, A, dh = draw(T, d, dtype=dtype), draw(r, d, dtype=dtype, seed=1), draw(T, r, dtype=dtype, seed=2)
    dropped = x * K.to(dtype)
    h = triton_kernels.down_projection(x, A, p, SEED)
    assert_as_accurate(h, eager.down_projection(dropped, A, 0.0, 0), dropped.double() @ A.double().T)
    dA = triton_kernels.A_gradient(dh, x, p, SEED)
    assert_as_accurate(dA, dh.T @ dropped, dh.double().T @ dropped.double())


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(("T", "d", "r"), SIZES)
def test_gradient_of_x(T, d, r, p, dtype):
    K = mask(T, d, p)
    dh, A = draw(T, r, dtype=dtype), draw(r, d, dtype=dtype, seed=1)
    g, weight = draw(T, 9, dtype=dtype, seed=2), draw(9, d, dtype=dtype, seed=3)
    update, base = (dh.double() @ A.double()) * K, g.double() @ weight.double()
    plain = (dh @ A) * K.to(dtype)
    assert_as_accurate(triton_kernels.x_gradient(dh, A, p, SEED, dtype), plain, update)
    found = triton_kernels.x_gradient(dh, A, p, SEED, dtype, g, weight)
    assert_as_accurate(found, plain.addmm(g, weight), update + base)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("T", "d", "r"), [*SIZES, (300, 50, 16)])
def test_one_pass_over_g(T, d, r, dtype):
    g, B, h = draw(T, d, dtype=dtype), draw(d, r, dtype=dtype, seed=1), draw(T, r, dtype=dtype, seed=2)
    exact = (2 * g.double() @ B.double(), 2 * g.double().T @ h.double())
    plain = eager.up_gradients(g, B, h, 2.0, True)
    for results in zip(triton_kernels.one_pass_up_gradients(g, B, h, 2.0), plain, exact, strict=True):
        assert_as_accurate(*results)


def test_a_bfloat16_input_with_float32_factors_is_computed_in_float32():
    x, A = draw(65, 200, dtype=torch.bfloat16), draw(5, 200, seed=1)
    h, dh = triton_kernels.down_projection(x, A, 0.0, 0), draw(65, 5, seed=2)
    assert h.dtype == torch.float32
    assert error(h, x.double() @ A.double().T) < 1e-6
    assert error(triton_kernels.A_gradient(dh, x, 0.0, 0), dh.double().T @ x.double()) < 1e-6


def test_strided_and_expanded_inputs():
    A, B, h = draw(5, 70, seed=1), draw(70, 5, seed=2), draw(90, 5, seed=3)
    whole = draw(90, 140)
    layouts = {"sliced": whole[:, ::2], "part": whole[:, 30:100], "transposed": draw(70, 90).T, "expanded": draw(1, 1)}
    for name, x in layouts.items():
        x = x.expand(90, 70)
        contiguous = x.contiguous()
        for function, arguments in (
            (triton_kernels.drop, (0.3, SEED)),
            (triton_kernels.down_projection, (A, 0.3, SEED)),
            (triton_kernels.one_pass_up_gradients, (B, h, 2.0)),
        ):
            for pair in zip(function(x, *arguments), function(contiguous, *arguments), strict=True):
                assert torch.equal(*pair), (name, function.__name__)
        expected = triton_kernels.A_gradient(h, contiguous, 0.3, SEED)
        assert torch.equal(triton_kernels.A_gradient(h.T.contiguous().T, x, 0.3, SEED), expected), name


def test_elements_beyond_two_to_the_31():
    stride = 2**31 + 11
    try:
        x = torch.empty(stride + 8, dtype=torch.float16, device=DEVICE).as_strided((2, 8), (stride, 1))
    except RuntimeError:
        pytest.skip("needs 4.3 GB of address space")
    near = draw(2, 8, dtype=torch.float16)
    far = x.copy_(near)
    A, h = draw(3, 8, dtype=torch.float16, seed=1), draw(2, 3, dtype=torch.float16, seed=2)
    for function, before, after in (
        (triton_kernels.drop, (), (0.3, SEED)),
        (triton_kernels.down_projection, (), (A, 0.3, SEED)),
        (triton_kernels.one_pass_up_gradients, (), (A.T, h, 2.0)),
        (triton_kernels.A_gradient, (h,), (0.3, SEED)),
    ):
        for pair in zip(function(*before, far, *after), function(*before, near, *after), strict=True):
            assert torch.equal(*pair), function.__name__


@pytest.mark.parametrize("programs", [1, 512])  # one part and several
def test_scratch_memory_is_never_read_and_equal_inputs_give_equal_bits(programs, monkeypatch):
    monkeypatch.setattr(triton_kernels, "_PROGRAMS", programs)
    expected = all_products()
    empty = torch.empty

    def poisoned(*args, **kwargs):
        memory = empty(*args, **kwargs)
        return memory.fill_(float("nan")) if memory.is_floating_point() else memory

    monkeypatch.setattr(torch, "empty", poisoned)
    for found, before in zip(all_products(), expected, strict=True):
        assert torch.equal(found, before)


def all_products() -> list[Tensor]:
    x, A, B, dh = draw(150, 70), draw(5, 70, seed=1), draw(70, 5, seed=2), draw(150, 5, seed=3)
    return [
        triton_kernels.drop(x, 0.3, SEED),
        triton_kernels.down_projection(x, A, 0.3, SEED),
        *triton_kernels.one_pass_up_gradients(x, B, dh, 2.0),
        triton_kernels.A_gradient(dh, x, 0.3, SEED),
        triton_kernels.x_gradient(dh, A, 0.3, SEED, torch.float32),
    ]


# The whole of mixed_lora


def make(T: int, r: int, dtype: torch.dtype) -> dict[str, Tensor]:
    shapes = {"x": (T, 24), "A": (r, 24), "M": (r, r), "B": (20, r)}
    return {
        name: (draw(*shape, dtype=torch.float64, seed=i) / shape[-1] ** 0.5).to(dtype).requires_grad_()
        for i, (name, shape) in enumerate(shapes.items())
    }


def frozen(dtype: torch.dtype) -> nn.Linear:
    torch.manual_seed(1)
    return nn.Linear(24, 20).to(DEVICE, dtype).requires_grad_(False)


def output(tensors: dict[str, Tensor], base: str, p: float, kernel: str = "fused") -> Tensor:
    x, A, M, B = tensors.values()
    layer = frozen(x.dtype)
    torch.manual_seed(0)  # of the mask
    return mixed_lora(x, layer if base == "layer" else layer(x), A, M, B, 2.0, p, kernel=kernel)


def exact_output(tensors: dict[str, Tensor], p: float) -> tuple[Tensor, list[Tensor]]:
    """The formula in float64 with the mask that the Triton kernels draw."""
    x, A, M, B = leaves = [tensor.detach().double().requires_grad_() for tensor in tensors.values()]
    layer = frozen(tensors["x"].dtype).double()
    torch.manual_seed(0)
    seed = dropout.draw_seed(DEVICE) if p else 0
    K = mask(len(x), x.shape[1], p, seed)
    return layer(x) + 2.0 * (dropout.keep_scale(p) if p else 1.0) * (x * K) @ A.T @ M.T @ B.T, leaves


CASES = [(33, 5, torch.float32), (1, 1, torch.float32), (150, 16, torch.float32), (33, 40, torch.float32)]
CASES += [(33, 5, torch.bfloat16), (33, 100, torch.bfloat16), (33, 16, torch.float16)]


@pytest.mark.parametrize("base", ["layer", "output"])
@pytest.mark.parametrize("p", [0.0, 0.3])
@pytest.mark.parametrize(("T", "r", "dtype"), CASES)
def test_output_and_gradients_are_the_formula(T, r, dtype, p, base):
    tensors = make(T, r, dtype)
    y = output(tensors, base, p)
    assert y.grad_fn.products is triton_kernels
    exact, leaves = exact_output(tensors, p)
    g = draw(*y.shape, dtype=dtype, seed=9)
    found = (y, *torch.autograd.grad(y, list(tensors.values()), g))
    expected = (exact, *torch.autograd.grad(exact, leaves, g.double()))
    tolerance = 8 * torch.finfo(dtype).eps  # of six products in a row
    for name, value, truth in zip(("y", *tensors), found, expected, strict=True):
        assert value.dtype == dtype
        assert error(value, truth) < tolerance, name


def test_the_backward_pass_is_the_derivative_of_the_forward_pass():
    """With a fixed mask the output is linear in each input, so a finite difference is exact but for rounding."""
    tensors = make(33, 5, torch.float32)
    g = draw(33, 20, seed=9)
    gradients = torch.autograd.grad(output(tensors, "layer", 0.3), list(tensors.values()), g)
    for name, gradient in zip(tensors, gradients, strict=True):
        step = draw(*gradient.shape, seed=5)
        ahead, behind = (
            output({**tensors, name: tensors[name] + sign * step}, "layer", 0.3).mul(g).double().sum()
            for sign in (0.5, -0.5)
        )
        assert (ahead - behind).item() == pytest.approx((gradient * step).double().sum().item(), rel=1e-4), name


def test_the_backward_pass_keeps_to_the_kernels_of_the_forward_pass(monkeypatch):
    tensors = make(33, 5, torch.float32)
    expected = torch.autograd.grad(output(tensors, "layer", 0.3).sum(), list(tensors.values()))
    y = output(tensors, "layer", 0.3).sum()
    monkeypatch.setenv(autograd.TRITON_VARIABLE, "0")
    for pair in zip(torch.autograd.grad(y, list(tensors.values())), expected, strict=True):
        assert torch.equal(*pair)


def test_second_derivatives_use_the_same_mask():
    tensors = make(20, 3, torch.float32)
    exact, leaves = exact_output(tensors, 0.3)
    results = []
    for y, inputs in ((output(tensors, "layer", 0.3), list(tensors.values())), (exact, leaves)):
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)
        results.append(torch.autograd.grad(sum(gradient.square().sum() for gradient in first), inputs))
    for name, found, expected in zip(tensors, *results, strict=True):
        assert error(found, expected) < 1e-5, name


def test_rebuilding_x_gives_the_same_bits():
    found = []
    for kernel in ("fused", "remat"):
        tensors = make(33, 5, torch.float32)
        left, right = draw(33, 24, seed=7).requires_grad_(), draw(33, 24, seed=8).requires_grad_()
        y = output({**tensors, "x": left * right}, "layer", 0.3, kernel)
        assert (y.grad_fn.saved_tensors[0] is None) == (kernel == "remat")
        found.append(torch.autograd.grad(y.sum(), [left, right, tensors["A"], tensors["M"], tensors["B"]]))
    for pair in zip(*found, strict=True):
        assert torch.equal(*pair)


def test_under_autocast():
    tensors = make(33, 5, torch.float32)
    with torch.autocast(DEVICE.type, torch.bfloat16):
        y = output(tensors, "layer", 0.3)
    exact, leaves = exact_output(tensors, 0.3)
    found = (y, *torch.autograd.grad(y.sum(), list(tensors.values())))
    expected = (exact, *torch.autograd.grad(exact.sum(), leaves))
    for name, value, truth in zip(("y", *tensors), found, expected, strict=True):
        assert error(value, truth) < 2**-5, name


def test_what_the_kernels_do_not_take_goes_to_torch(monkeypatch):
    for tensors in (make(8, 5, torch.float64), make(0, 5, torch.float32), make(8, 65, torch.float32)):
        y = output(tensors, "layer", 0.3)
        assert y.grad_fn.products is eager
        assert all(gradient.isfinite().all() for gradient in torch.autograd.grad(y.sum(), list(tensors.values())))
    tensors = make(8, 5, torch.float32)
    assert output(tensors, "layer", 0.3).grad_fn.products is triton_kernels
    monkeypatch.setenv(autograd.TRITON_VARIABLE, "0")
    assert output(tensors, "layer", 0.3).grad_fn.products is eager
