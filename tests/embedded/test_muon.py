"""Muon: its steps are those of torch, and its update is the orthogonal part of the gradient."""

import copy

import pytest
import torch

from moslora.embedded.muon import Muon, orthogonal


@pytest.mark.parametrize("shape", [(24, 40), (40, 24), (8, 8)])
def test_muon_takes_the_steps_of_torch_to_the_rounding_of_bfloat16(shape):
    draw = torch.Generator().manual_seed(0)
    ours = torch.nn.Parameter(torch.randn(shape, generator=draw))
    theirs = copy.deepcopy(ours)
    before = ours.detach().clone()
    optimizers = Muon([ours], lr=0.02), torch.optim.Muon([theirs], lr=0.02, weight_decay=0.0)
    for _ in range(4):
        ours.grad = torch.randn(shape, generator=draw)
        theirs.grad = ours.grad.clone()
        for optimizer in optimizers:
            optimizer.step()
    assert (ours - theirs).norm() < 0.03 * (theirs - before).norm()


@pytest.mark.parametrize("shape", [(6, 10), (10, 6), (8, 4, 3, 3)])
def test_the_orthogonal_update_is_near_that_of_the_singular_value_decomposition(shape):
    gradient = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, _, right = torch.linalg.svd(gradient.flatten(1), full_matrices=False)
    exact, found = left @ right, orthogonal(gradient).flatten(1)
    assert torch.linalg.svdvals(found).sub(1).abs().max() < 0.35  # the quintic brings them near 1, not to it
    assert torch.nn.functional.cosine_similarity(exact.flatten(), found.flatten(), dim=0) > 0.97


def test_an_orthogonal_update_keeps_the_singular_vectors():
    left, _, right = torch.linalg.svd(
        torch.randn(12, 30, generator=torch.Generator().manual_seed(1)), full_matrices=False
    )
    found = orthogonal(left @ torch.diag(torch.linspace(0.2, 3, 12)) @ right)
    inside = left.T @ found @ right.T
    assert (inside - torch.diag(inside.diagonal())).abs().max() < 1e-4
    assert 0.6 < inside.diagonal().min() <= inside.diagonal().max() < 1.3
