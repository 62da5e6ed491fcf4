"""Bytes kept for the backward pass, against saved-tensor hooks and by hand."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from moslora.adapter import saved_bytes
from tests.adapter.test_kernels import IDS, adapted


def seen_by_hooks(model: nn.Module) -> int:
    storages = {}

    def pack(tensor):
        storages[tensor.untyped_storage()._cdata] = tensor.untyped_storage()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = model(input_ids=IDS, labels=IDS).loss  # keeps the graph, so that no storage is used twice
    assert loss.requires_grad
    own = {tensor.untyped_storage()._cdata for tensor in (*model.parameters(), *model.buffers())}
    return sum(storage.nbytes() for key, storage in storages.items() if key not in own)


@pytest.mark.parametrize("kernel", ["reference", "fused"])
def test_the_walk_finds_what_hooks_see(kernel):
    model = adapted(kernel, lora_dropout=0.05)
    found = saved_bytes(model(input_ids=IDS, labels=IDS).loss, model)
    assert found == pytest.approx(seen_by_hooks(model), rel=1e-3)  # a few scalars of the loss apart


def test_a_product_keeps_its_factors_once_and_no_parameter():
    layer = nn.Linear(8, 8, bias=False)
    x = torch.ones(4, 8, requires_grad=True)
    y = layer(x) * layer(x)  # each factor (4, 8); both calls keep x
    assert saved_bytes(y, layer) == 4 * (3 * 4 * 8)


def test_reentrant_checkpointing_keeps_the_input():
    block = nn.Sequential(nn.Linear(8, 64), nn.GELU(), nn.Linear(64, 8))
    x = torch.ones(4, 8, requires_grad=True)
    y = checkpoint(block, x.clone(), use_reentrant=True, preserve_rng_state=False)
    assert saved_bytes(y, block) == 4 * (4 * 8)
