"""init_mixer="gradient": the directions, the norm, the first step, and that nothing else is touched."""

import math
from types import SimpleNamespace

import peft
import pytest
import torch
from torch import nn

import moslora
from moslora import MosLoraConfig, UnsupportedError
from moslora.equation import draw_mixer, gradient_mixer
from moslora.errors import ConfigError
from tests.helpers import relative_difference, tiny_llama

TOKENS = torch.randint(0, 64, (4, 12), generator=torch.Generator().manual_seed(0))
BATCH = {"input_ids": TOKENS, "labels": TOKENS}
CONFIG = {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "up_proj"]}


def llama(**settings: object) -> peft.PeftModel:
    model = tiny_llama()
    torch.manual_seed(1)
    return peft.get_peft_model(model, MosLoraConfig(**{**CONFIG, "init_mixer": "gradient", **settings}))


class Regression(nn.Module):
    """Mean square error of one linear layer, whose target differs from it by one known direction."""

    def __init__(self, d_in: int = 24, d_out: int = 10, seed: int = 0) -> None:
        super().__init__()
        draw = torch.Generator().manual_seed(seed)
        self.layer = nn.Linear(d_in, d_out, bias=False)
        self.layer.weight.data = torch.randn(d_out, d_in, generator=draw)
        self.target = self.layer.weight.data.clone()

    def forward(self, x):
        return SimpleNamespace(loss=(self.layer(x) - x @ self.target.T).square().mean())


def regression(init: str, seed: int = 0) -> peft.PeftModel:
    torch.manual_seed(seed)
    model = Regression(seed=seed)
    return peft.get_peft_model(model, MosLoraConfig(r=4, lora_alpha=4, target_modules=["layer"], init_mixer=init))


def factors(model: peft.PeftModel) -> tuple[torch.Tensor, torch.Tensor]:
    down = model.base_model.model.layer.lora_A["default"]
    return down.raw.detach(), down.mixer.detach()


def test_the_first_row_finds_the_one_direction_that_the_loss_needs():
    model = regression("gradient")
    A = factors(model)[0]
    wanted = torch.randn(4, generator=torch.Generator().manual_seed(5))
    direction = A.T @ wanted / (A.T @ wanted).norm()  # within span(A)
    model.base_model.model.target += torch.outer(torch.ones(10), direction)
    x = torch.eye(24)  # every input counts the same, so the gradient is the difference of the weights
    moslora.initialize_mixer(model, [{"x": x}])
    A, M = factors(model)
    # G A^T = -c ones (A direction)^T has the single right singular vector A direction.
    leading = A @ direction / (A @ direction).norm()
    assert abs(torch.dot(M[0] / M[0].norm(), leading)).item() == pytest.approx(1, abs=1e-5)
    assert torch.linalg.svdvals(M)[1:].max() / torch.linalg.svdvals(M)[0] == pytest.approx(0.01, rel=1e-3)


def test_the_mixer_is_the_formula_from_the_gradient_of_the_weight_and_has_the_size_of_a_kaiming_one():
    model = llama()
    plain = tiny_llama()
    weights = {name: p for name, p in plain.named_parameters() if name.endswith(("q_proj.weight", "up_proj.weight"))}
    other = {"input_ids": TOKENS.flip(0) + 1, "labels": TOKENS.flip(0)}
    other["input_ids"] %= 64
    gradients = torch.autograd.grad(plain(**BATCH).loss + plain(**other).loss, list(weights.values()))
    moslora.initialize_mixer(model, [BATCH, other])
    for name, G in zip(weights, gradients, strict=True):
        down = model.get_submodule(f"base_model.model.{name.removesuffix('.weight')}").lora_A["default"]
        A, M = down.raw.detach(), down.mixer.detach()
        _, sizes, Vh = torch.linalg.svd(G.double() @ A.double().T, full_matrices=False)
        truth = sizes[:, None] * Vh
        gram = truth.T @ truth  # free of the signs of the singular vectors
        assert relative_difference(M.T @ M / M.norm() ** 2, gram / gram.trace()) < 1e-4
        assert (M @ A).norm().item() == pytest.approx(A.norm().item() / math.sqrt(3), rel=1e-5)


def test_it_leaves_no_trace_but_the_mixers():
    model = llama(lora_dropout=0.3).train()
    before = {name: value.clone() for name, value in model.state_dict().items() if not name.endswith("mixer")}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    moslora.initialize_mixer(model, [BATCH])
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert all(torch.equal(model.state_dict()[name], value) for name, value in before.items())
    with torch.no_grad(), model.disable_adapter():
        base = model.eval()(**BATCH).logits
    assert torch.equal(model(**BATCH).logits, base)
    mixers = [p.clone() for n, p in model.named_parameters() if n.endswith("mixer")]
    again = llama().eval()
    moslora.initialize_mixer(again, iter([BATCH]))
    found = [p for n, p in again.named_parameters() if n.endswith("mixer")]
    assert all(torch.equal(*pair) for pair in zip(found, mixers, strict=True))


def test_without_the_call_nothing_runs_and_a_failed_call_changes_nothing(tmp_path):
    model = llama()
    for run in (lambda: model(**BATCH), lambda: moslora.to_lora(model), model.merge_and_unload):
        with pytest.raises(UnsupportedError, match="initialize_mixer"):
            run()
    model = llama()
    with pytest.raises(ConfigError, match="no batches"):
        moslora.initialize_mixer(model, [])
    with pytest.raises(UnsupportedError, match="initialize_mixer"):
        model(**BATCH)
    moslora.initialize_mixer(model, [BATCH])
    with pytest.raises(UnsupportedError, match="waits"):
        moslora.initialize_mixer(model, [BATCH])
    model.save_pretrained(tmp_path)
    for low_memory in (False, True):
        again = peft.PeftModel.from_pretrained(tiny_llama(), tmp_path, low_cpu_mem_usage=low_memory)
        assert torch.equal(again(**BATCH).logits, model.eval()(**BATCH).logits)


def test_layers_without_a_zero_B_or_that_are_not_linear_are_refused():
    with pytest.raises(UnsupportedError, match="starts at zero"):
        llama(init_lora_weights=False)
    with pytest.raises(UnsupportedError, match="embed_tokens"):
        llama(target_modules=["embed_tokens"])


def test_a_layer_without_a_gradient_mixes_all_directions_alike():
    A = torch.randn(4, 9)
    M = gradient_mixer(torch.zeros(7, 4), A)
    assert relative_difference(M.T @ M, torch.eye(4) / 3) < 1e-5


def _first_decrease(mixer: torch.Tensor, A: torch.Tensor, G: torch.Tensor, adam: bool) -> float:
    """First-order decrease of the loss over the learning rate, for the first step of B from zero."""
    step = G @ A.T @ mixer.T
    step = step.sign() if adam else step
    return (G * (step @ mixer @ A)).sum().item()


def _gains(adam: bool) -> torch.Tensor:
    """Decrease with the gradient mixer over that with a Kaiming mixer on the same A, for 200 random problems."""
    gains = []
    for seed in range(200):
        draw = torch.Generator().manual_seed(seed)
        A = torch.empty(8, 64).uniform_(-1 / 8, 1 / 8, generator=draw)
        G = torch.randn(48, 64, generator=draw) @ torch.diag(torch.arange(1, 65) ** -1.0)  # a decaying spectrum
        kaiming = torch.empty(8, 8)
        draw_mixer(kaiming, "kaiming_uniform", draw)
        ours = gradient_mixer(G @ A.T, A)
        gains.append(_first_decrease(ours, A, G, adam) / _first_decrease(kaiming, A, G, adam))
    return torch.tensor(gains)


def test_a_first_step_of_gradient_descent_gains_more_than_with_a_kaiming_mixer_on_the_same_A():
    gains = _gains(adam=False)
    assert gains.median() > 3
    assert gains.min() > 1


def test_a_first_step_of_adam_which_sees_signs_only_gains_nothing():
    assert _gains(adam=True).median().item() == pytest.approx(1, abs=0.1)


def test_no_mixer_of_the_same_norm_of_M_transposed_M_decreases_the_loss_more():
    draw = torch.Generator().manual_seed(0)
    A, G = torch.randn(5, 20, generator=draw).double(), torch.randn(9, 20, generator=draw).double()
    best = gradient_mixer(G @ A.T, A)
    for _ in range(200):
        other = torch.randn(5, 5, generator=draw).double()
        other *= ((best.T @ best).norm() / (other.T @ other).norm()).sqrt()
        assert _first_decrease(other, A, G, adam=False) < _first_decrease(best, A, G, adam=False)
