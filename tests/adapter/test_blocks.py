"""`train_off_diagonal`: only the blocks between the adapters of a mix change, to the bit."""

import pytest
import torch
from peft import PeftModel

from moslora import train_off_diagonal
from moslora.checkpoint import load_adapter, mix_adapters, read_ranks
from moslora.equation import owners
from moslora.errors import UnsupportedError
from tests.checkpoint.adapters import adapted_toy
from tests.checkpoint.toy import toy, words

SETTINGS = {"target_modules": ["embed", "conv", "grouped", "first", "second"], "target_parameters": None}
OPTIMIZERS = {
    "adamw": lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=0.3),
    "sgd with momentum": lambda parameters: torch.optim.SGD(parameters, lr=1e-2, momentum=0.9, weight_decay=0.3),
}


@pytest.fixture
def mixed(tmp_path):
    adapted_toy(tmp_path / "a", seed=0, r=4, **SETTINGS)
    adapted_toy(tmp_path / "b", seed=1, **{**SETTINGS, "r": 2, "target_modules": SETTINGS["target_modules"][:4]})
    mix_adapters([tmp_path / "a", tmp_path / "b"], tmp_path / "mixed", weights=[0.7, 0.5])
    return tmp_path / "mixed"


def loss_of(model):
    target = torch.randn(30, 5, generator=torch.Generator().manual_seed(7))
    return (model(words()) - target[: len(words())]).square().mean()


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_changes_the_blocks_between_the_adapters_and_not_one_other_bit(mixed, name, tmp_path):
    model = PeftModel.from_pretrained(toy(), mixed).eval()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    blocks = train_off_diagonal(model, read_ranks(mixed))
    optimizer = blocks.guard(OPTIMIZERS[name](blocks.mixers.values()))
    losses = []
    for _ in range(8):
        optimizer.zero_grad()
        loss = loss_of(model)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    changed = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[key])}
    assert len(changed) == 4
    for key in changed:
        assert key.endswith((".lora_A.default.mixer", ".lora_embedding_mixer.default")), key
        owner = owners([4, 2], 2 if "grouped" in key else 1)
        between = owner[:, None] != owner
        after = model.state_dict()[key]
        assert torch.equal(after[~between], before[key][~between]), key
        assert (after[between] != before[key][between]).all(), key
    model.save_pretrained(tmp_path / "trained")
    assert load_adapter(tmp_path / "trained").layers["first"].M[:4, 4:].count_nonzero() == 8


def test_the_gradient_is_that_of_the_formula_outside_the_diagonal_and_zero_inside(mixed):
    model = PeftModel.from_pretrained(toy(), mixed).double().eval()
    train_off_diagonal(model, read_ranks(mixed))
    loss_of(model).backward()
    layer = model.get_base_model().first
    found = layer.lora_A["default"].mixer.grad
    free = PeftModel.from_pretrained(toy(), mixed, is_trainable=True).double().eval()
    loss_of(free).backward()
    expected = free.get_base_model().first.lora_A["default"].mixer.grad
    assert (found[:4, :4] == 0).all()
    assert (found[4:, 4:] == 0).all()
    torch.testing.assert_close(found[:4, 4:], expected[:4, 4:])
    torch.testing.assert_close(found[4:, :4], expected[4:, :4])
    assert expected[:4, 4:].abs().min() > 0


def test_only_layers_of_several_adapters_are_trained_and_counted(mixed):
    model = PeftModel.from_pretrained(toy(), mixed)
    blocks = train_off_diagonal(model, read_ranks(mixed))
    assert blocks.mixers.keys() == {"embed", "conv", "grouped", "first"}
    assert blocks.count == 4 * 2 * (4 * 2)
    trained = {id(parameter) for parameter in model.parameters() if parameter.requires_grad}
    assert trained == {id(M) for M in blocks.mixers.values()}


def test_a_model_without_the_mix_is_refused(mixed, tmp_path):
    adapted_toy(tmp_path / "plain", r=4, **SETTINGS)
    model = PeftModel.from_pretrained(toy(), tmp_path / "plain")
    with pytest.raises(UnsupportedError, match=r"found one of shape \(4, 4\) .* of rank 6"):
        train_off_diagonal(model, {"first": [4, 2]})
    with pytest.raises(UnsupportedError, match="second: found no such mixer in the adapter 'other'"):
        train_off_diagonal(model, {"second": [4, 2]}, "other")
    with pytest.raises(UnsupportedError, match="nothing outside the diagonal"):
        train_off_diagonal(model, {"second": [4, 0]})
