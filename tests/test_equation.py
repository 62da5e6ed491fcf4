import math

import pytest
import torch

from moslora.equation import (
    MIXER_INITS,
    Factors,
    adapter_output,
    butterfly_mixer,
    delta_weight,
    draw_mixer,
    fold,
    fold_butterfly,
    subspace_count,
    trained_parameter_count,
    unfold,
)
from moslora.errors import ConfigError, ShapeError


def random_factors(d_in: int = 24, d_out: int = 20, r: int = 5, dtype: torch.dtype = torch.float64) -> Factors:
    draw = torch.Generator().manual_seed(0)
    shapes = ((r, d_in), (r, r), (d_out, r))
    return Factors(*(torch.randn(s, generator=draw, dtype=dtype, requires_grad=True) for s in shapes))


def test_delta_weight_is_the_sum_of_all_mixed_rank_one_subspaces():
    A, M, B = random_factors()
    total = sum(M[i, j] * torch.outer(B[:, i], A[j]) for i in range(5) for j in range(5))
    torch.testing.assert_close(delta_weight(Factors(A, M, B), 0.5), 0.5 * total)


def test_activations_and_weights_tell_the_same_story_forward_and_backward():
    factors = random_factors()
    x = torch.randn(3, 7, 24, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    by_activation, by_weight = adapter_output(x, factors, 0.5), x @ delta_weight(factors, 0.5).T
    torch.testing.assert_close(by_activation, by_weight)
    upstream = torch.randn_like(by_weight)
    gradients = [torch.autograd.grad(y, factors, upstream) for y in (by_activation, by_weight)]
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_the_gradients_are_those_of_appendix_C():
    factors = random_factors()
    x = torch.randn(9, 24, dtype=torch.float64)
    g = torch.randn(9, 20, dtype=torch.float64)
    dA, dM, dB = torch.autograd.grad(adapter_output(x, factors, 2.0), factors, g)
    A, M, B = factors
    dW = 2.0 * g.T @ x  # gradient of the merged weight
    torch.testing.assert_close(dA, (B @ M).T @ dW)
    torch.testing.assert_close(dM, B.T @ dW @ A.T)
    torch.testing.assert_close(dB, dW @ (M @ A).T)


def test_identity_mixer_is_lora():
    A, _, B = random_factors()
    torch.testing.assert_close(delta_weight(Factors(A, torch.eye(5, dtype=A.dtype), B), 0.5), 0.5 * B @ A)


def test_butterfly_mixer_multiplies_the_sums_of_the_halves():
    A, _, B = random_factors(r=6)
    mixed = delta_weight(Factors(A, butterfly_mixer(6, dtype=A.dtype), B), 0.5)
    torch.testing.assert_close(mixed, 0.5 * (B[:, :3] + B[:, 3:]) @ (A[:3] + A[3:]))


def test_butterfly_needs_an_even_rank():
    with pytest.raises(ConfigError, match="rank 5"):
        butterfly_mixer(5)


def test_zero_mixer_on_zero_B_can_never_learn():
    factors = random_factors()._replace(
        M=torch.zeros(5, 5, dtype=torch.float64, requires_grad=True),
        B=torch.zeros(20, 5, dtype=torch.float64, requires_grad=True),
    )
    adapter_output(torch.randn(4, 24, dtype=torch.float64), factors, 1.0).square().sum().backward()
    adapter_output(torch.randn(4, 24, dtype=torch.float64), factors, 1.0).sum().backward()
    assert all(factor.grad.abs().max() == 0 for factor in factors)


def test_kaiming_mixer_on_zero_B_trains_B_first():
    M = torch.empty(5, 5, dtype=torch.float64)
    draw_mixer(M, "kaiming_uniform", torch.Generator().manual_seed(0))
    factors = random_factors()._replace(M=M.requires_grad_(), B=torch.zeros(20, 5, dtype=M.dtype, requires_grad=True))
    adapter_output(torch.randn(4, 24, dtype=torch.float64), factors, 1.0).sum().backward()
    assert factors.B.grad.abs().max() > 0
    assert factors.M.grad.abs().max() == 0


@pytest.mark.parametrize(
    "wrong", [{"M": torch.zeros(4, 4)}, {"B": torch.zeros(20, 4)}, {"M": torch.zeros(5)}, {"A": torch.zeros(24)}]
)
def test_factors_of_another_rank_are_refused(wrong):
    with pytest.raises(ShapeError, match="rank"):
        delta_weight(random_factors(dtype=torch.float32)._replace(**wrong), 1.0)


def test_inits_have_the_distribution_of_their_name():
    drawn = {}
    for init in set(MIXER_INITS) - {"gradient"}:
        drawn[init] = torch.empty(64, 64)
        draw_mixer(drawn[init], init, torch.Generator().manual_seed(0))
    bound = 1 / math.sqrt(64)  # kaiming_uniform with a = sqrt(5)
    assert 0.99 * bound < drawn["kaiming_uniform"].abs().max() <= bound
    torch.testing.assert_close(drawn["orthogonal"] @ drawn["orthogonal"].T, torch.eye(64), atol=1e-5, rtol=0)
    assert drawn["normal"].std().item() == pytest.approx(1, abs=0.05)
    assert torch.equal(drawn["identity"], torch.eye(64))
    assert torch.equal(drawn["zeros"], torch.zeros(64, 64))


def test_unknown_init_is_refused():
    with pytest.raises(ConfigError, match="kaiming_uniform"):
        draw_mixer(torch.empty(2, 2), "xavier")


def test_every_expert_gets_its_own_mixer():
    mixers = torch.empty(3, 4, 4)
    draw_mixer(mixers, "orthogonal", torch.Generator().manual_seed(0))
    assert not torch.equal(mixers[0], mixers[1])
    torch.testing.assert_close(mixers @ mixers.mT, torch.eye(4).expand(3, 4, 4), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(4, 6), (4, 3, 5), (4, 3, 5, 2)])
def test_folding_and_unfolding_are_inverse(shape):
    A = torch.randn(shape, dtype=torch.float64)
    M = torch.randn(4, 4, dtype=torch.float64)
    torch.testing.assert_close(fold(A, M), torch.einsum("ij,j...->i...", M, A))
    torch.testing.assert_close(unfold(fold(A, M), M), A)


def test_folding_experts_folds_each_on_its_own():
    A, M = torch.randn(3 * 4, 6), torch.randn(3, 4, 4)
    expected = torch.cat([M[e] @ A[4 * e : 4 * e + 4] for e in range(3)])
    torch.testing.assert_close(fold(A, M), expected)
    torch.testing.assert_close(unfold(expected, M), A, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("experts", [1, 3])
def test_folding_the_butterfly_needs_no_matrix(experts):
    A = torch.randn(experts * 4, 6, 2)
    M = butterfly_mixer(4) if experts == 1 else butterfly_mixer(4).repeat(3, 1, 1)
    torch.testing.assert_close(fold_butterfly(A, experts), fold(A.flatten(1), M).view(A.shape))


def test_a_mixer_that_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"\(4, 6\)"):
        fold(torch.zeros(4, 6), torch.zeros(5, 5))


def test_numbers_of_subspaces_are_those_of_table_2():
    assert [subspace_count(mixer, 16) for mixer in ("identity", "butterfly", "learnable")] == [16, 32, 256]


def test_llama_3_8b_has_the_parameters_of_the_paper():
    per_layer = [(4096, 4096), (4096, 1024), (4096, 1024), (4096, 14336), (14336, 4096)]  # q, k, v, up, down
    assert trained_parameter_count(per_layer * 32, 16, "identity") == 28_311_552
    assert trained_parameter_count(per_layer * 32, 16, "butterfly") == 28_311_552
    assert trained_parameter_count(per_layer * 32, 16, "learnable") == 28_352_512
