"""Every kind of layer against the paper's formula in float64, forward and backward."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.config import BdLoraConfig
from torch import Tensor, nn
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from moslora import MosLoraConfig, UnsupportedError
from moslora.equation import butterfly_mixer
from tests.helpers import randomize_adapters

RANK, ALPHA = 4, 6
SCALE = ALPHA / RANK


class Experts(nn.Module):
    """Three experts in one parameter, laid out (experts, in, out)."""

    is_transposed = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(3, 6, 5))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("bi,eio->ebo", x, self.weight)


class OneLayer(nn.Module):
    """A base model of a single layer, called `layer`."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


LAYERS = {
    "linear": (lambda: nn.Linear(6, 5), (3, 6)),
    "linear_without_bias": (lambda: nn.Linear(6, 5, bias=False), (2, 3, 6)),
    "transformers_conv1d": (lambda: Conv1D(5, 6), (3, 6)),
    "conv1d": (lambda: nn.Conv1d(6, 5, 3, padding=1, stride=2), (2, 6, 8)),
    "conv2d": (lambda: nn.Conv2d(6, 5, 3, padding=1), (2, 6, 4, 4)),
    "conv2d_1x1": (lambda: nn.Conv2d(6, 5, 1), (2, 6, 4, 4)),
    "conv3d": (lambda: nn.Conv3d(6, 5, 3, padding=1), (2, 6, 3, 3, 3)),
    "embedding": (lambda: nn.Embedding(11, 5), None),
    "experts": (Experts, (3, 6)),
}


def adapted(kind: str, mixer: str = "learnable", **settings: object) -> tuple[PeftModel, nn.Module, Tensor]:
    """A one-layer PEFT model in float64 with random factors, its untouched base, and an input."""
    torch.manual_seed(0)
    make_layer, shape = LAYERS[kind]
    base = OneLayer(make_layer()).double()
    target = {"target_parameters": ["layer.weight"]} if kind == "experts" else {"target_modules": ["layer"]}
    if kind == "transformers_conv1d":
        target["fan_in_fan_out"] = True
    config = MosLoraConfig(r=RANK, lora_alpha=ALPHA, mixer=mixer, **target, **settings)
    model = get_peft_model(copy.deepcopy(base), config, autocast_adapter_dtype=False)
    randomize_adapters(model)
    x = torch.randint(0, 11, (3, 7)) if shape is None else torch.randn(shape, dtype=torch.float64)
    return model, base, x


def factors(model: PeftModel) -> dict[str, Tensor]:
    """Raw A, M and B of the only layer, by the leaf of their saved name."""
    found = {}
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            found[name.split(".lora_")[1].replace(".default", "")] = parameter
    return found


def raw_factors(model: PeftModel, mixer: str) -> tuple[Tensor, Tensor, Tensor]:
    found = factors(model)
    if "embedding_A" in found:
        A, B, M = found["embedding_A"], found["embedding_B"], found.get("embedding_mixer")
    else:
        A, B, M = found["A.raw"], found["B.weight"], found.get("A.mixer")
    if mixer == "butterfly":
        M = butterfly_mixer(RANK, dtype=A.dtype)
    return A, M, B


def formula(kind: str, base: nn.Module, A: Tensor, M: Tensor, B: Tensor) -> Tensor:
    """The merged weight by the paper's formula, in the layout of the base layer."""
    weight = base.layer.weight
    if kind == "experts":
        M = M if M.ndim == 3 else M.expand(3, -1, -1)
        a, b = A.view(3, RANK, -1), B.view(B.shape[0], RANK, 3)
        return weight + SCALE * torch.stack([(b[:, :, e] @ M[e] @ a[e]).T for e in range(3)])
    update = SCALE * (B.flatten(1) @ M @ A.flatten(1))
    if kind in ("embedding", "transformers_conv1d"):
        update = update.T
    return weight + update.view(weight.shape)


def apply_weight(kind: str, base: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    return torch.func.functional_call(base, {"layer.weight": weight}, (x,))


@pytest.mark.parametrize("mixer", ["learnable", "butterfly"])
@pytest.mark.parametrize("kind", LAYERS)
def test_a_layer_computes_and_learns_by_the_formula(kind, mixer):
    model, base, x = adapted(kind, mixer)
    A, M, B = raw_factors(model, mixer)
    output = model(x)
    expected = apply_weight(kind, base, formula(kind, base, A, M, B), x)
    torch.testing.assert_close(output, expected)

    upstream = torch.randn_like(output)
    trained = [A, B] if mixer == "butterfly" else [A, M, B]
    ours = torch.autograd.grad(output, trained, upstream)
    truth = torch.autograd.grad(expected, trained, upstream)
    for found, wanted in zip(ours, truth, strict=True):
        assert wanted.abs().max() > 0
        torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("safe_merge", [True, False])
@pytest.mark.parametrize("mixer", ["learnable", "butterfly"])
@pytest.mark.parametrize("kind", LAYERS)
def test_merging_gives_the_weight_of_the_formula_and_unmerging_takes_it_back(kind, mixer, safe_merge):
    model, base, x = adapted(kind, mixer)
    expected = formula(kind, base, *raw_factors(model, mixer)).detach()
    output = model(x).detach()
    model.merge_adapter(safe_merge=safe_merge)
    torch.testing.assert_close(model(x), output)
    model.unmerge_adapter()
    torch.testing.assert_close(model(x), output)
    merged = model.merge_and_unload(safe_merge=safe_merge)
    torch.testing.assert_close(merged.layer.weight.detach(), expected)


@pytest.mark.parametrize("kind", ["linear", "embedding", "conv2d"])
def test_dora_normalises_the_mixed_update(kind):
    model, base, x = adapted(kind, use_dora=True)
    A, M, B = raw_factors(model, "learnable")
    weight = formula(kind, base, A, M, B)
    magnitude = next(p for n, p in model.named_parameters() if "magnitude" in n)
    if kind == "embedding":
        dora = weight / weight.norm(dim=0, keepdim=True) * magnitude
    else:
        dora = weight / weight.flatten(1).norm(dim=1).view(-1, *[1] * (weight.ndim - 1))
        dora = dora * magnitude.view(-1, *[1] * (weight.ndim - 1))
    torch.testing.assert_close(model(x), apply_weight(kind, base, dora, x))


def test_dora_starts_from_the_base_function_even_with_a_random_B():
    torch.manual_seed(0)
    base = OneLayer(nn.Linear(6, 5)).double()
    config = MosLoraConfig(r=RANK, target_modules=["layer"], use_dora=True, init_lora_weights=False)
    model = get_peft_model(copy.deepcopy(base), config, autocast_adapter_dtype=False)
    A, M, B = raw_factors(model, "learnable")
    merged = base.layer.weight + model.base_model.model.layer.scaling["default"] * B @ M @ A
    magnitude = model.base_model.model.layer.lora_magnitude_vector["default"].weight
    torch.testing.assert_close(magnitude, merged.norm(dim=1))


@pytest.mark.parametrize("mixer", ["learnable", "butterfly"])
def test_multihead_attention_does_what_stock_lora_does_with_the_folded_factors(mixer):
    # Not the formula: PEFT 0.21 adds the update of out_proj twice, and a MoSLoRA has to mean the same as its export.
    torch.manual_seed(0)
    base = nn.ModuleDict({"layer": nn.MultiheadAttention(8, 2, batch_first=True)}).double()
    settings = {"r": RANK, "lora_alpha": ALPHA, "target_modules": ["layer"]}
    model = get_peft_model(copy.deepcopy(base), MosLoraConfig(mixer=mixer, **settings), autocast_adapter_dtype=False)
    stock = get_peft_model(copy.deepcopy(base), LoraConfig(**settings), autocast_adapter_dtype=False)
    randomize_adapters(model)
    ours, theirs = model.base_model.model["layer"], stock.base_model.model["layer"]
    for mine, plain in ((ours, theirs), (ours.base_layer.out_proj, theirs.base_layer.out_proj)):
        down = mine.lora_A["default"]
        M = butterfly_mixer(RANK).double() if mixer == "butterfly" else down.mixer
        plain.lora_A["default"].weight.data = (M @ down.raw).detach()
        plain.lora_B["default"].weight.data = mine.lora_B["default"].weight.detach().clone()
    x = torch.randn(2, 3, 8, dtype=torch.float64)
    torch.testing.assert_close(ours(x, x, x)[0], theirs(x, x, x)[0])
    ours(x, x, x)[0].square().sum().backward()
    theirs(x, x, x)[0].square().sum().backward()
    torch.testing.assert_close(ours.lora_B["default"].weight.grad, theirs.lora_B["default"].weight.grad)
    if mixer == "learnable":  # the chain rule from the gradient of M @ A to those of A and M
        down, effective = ours.lora_A["default"], theirs.lora_A["default"].weight.grad
        torch.testing.assert_close(down.raw.grad, down.mixer.T @ effective)
        torch.testing.assert_close(down.mixer.grad, effective @ down.raw.T)


@pytest.mark.parametrize("mixer", ["learnable", "butterfly"])
def test_a_grouped_convolution_mixes_before_the_groups(mixer):
    torch.manual_seed(0)
    base = OneLayer(nn.Conv2d(8, 8, 3, groups=2)).double()
    config = MosLoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["layer"], mixer=mixer)
    model = get_peft_model(copy.deepcopy(base), config, autocast_adapter_dtype=False)
    randomize_adapters(model)
    A, M, B = raw_factors(model, mixer)
    x = torch.randn(2, 8, 5, 5, dtype=torch.float64)
    hidden = torch.einsum("ij,bjkl->bikl", M, nn.functional.conv2d(x, A))
    torch.testing.assert_close(model(x), base(x) + SCALE * nn.functional.conv2d(hidden, B, groups=2))


def test_a_write_to_the_effective_weight_reaches_the_raw_factor():
    model, _, _ = adapted("linear")
    down = model.base_model.model.layer.lora_A["default"]
    wanted = torch.randn(RANK, 6, dtype=torch.float64)
    for write in (
        lambda: down.weight.data.copy_(wanted),
        lambda: setattr(down.weight, "data", wanted.clone()),
        lambda: down.weight.data.__setitem__(slice(None), wanted),
        lambda: down.weight.data.zero_().add_(wanted),
        lambda: setattr(down, "weight", wanted),
    ):
        down.weight.data.zero_()
        assert down.raw.abs().max() == 0
        with torch.no_grad():
            write()
        torch.testing.assert_close(down.effective().detach(), wanted)


def test_a_write_of_the_same_value_changes_nothing():
    model, _, _ = adapted("linear", "butterfly")
    down = model.base_model.model.layer.lora_A["default"]
    before = down.raw.clone()
    down.weight.data = down.weight.data.to(torch.float64)
    assert torch.equal(down.raw, before)


def test_a_write_that_the_butterfly_cannot_hold_is_refused():
    model, _, _ = adapted("linear", "butterfly")
    with pytest.raises(UnsupportedError, match="not every weight can be reached"):
        model.base_model.model.layer.lora_A["default"].weight.data = torch.randn(RANK, 6).double()


def test_a_plain_module_cannot_replace_a_mixed_one_unnoticed():
    model, _, _ = adapted("linear")
    with pytest.raises(UnsupportedError, match="drop its mixer"):
        model.base_model.model.layer.lora_A["default"] = nn.Linear(6, 8, bias=False)


def test_the_effective_weight_reports_the_gradient_flags_of_the_raw_factor():
    model, _, x = adapted("linear")
    down = model.base_model.model.layer.lora_A["default"]
    with torch.no_grad():
        assert down.weight.requires_grad
    model(x).sum().backward()
    assert down.weight.grad is down.raw.grad


def test_freezing_the_effective_weight_freezes_the_raw_factor():
    model, _, _ = adapted("linear")
    down = model.base_model.model.layer.lora_A["default"]
    down.weight.requires_grad = False
    assert not down.raw.requires_grad
    assert down.mixer.requires_grad
    down.weight.requires_grad_()
    assert down.raw.requires_grad


def test_an_optimizer_refuses_the_effective_weight():
    model, _, _ = adapted("linear")
    with pytest.raises(ValueError, match="non-leaf"):
        torch.optim.SGD([model.base_model.model.layer.lora_A["default"].weight], lr=0.1)


def bd_lora(base: nn.Module, mixer: str) -> PeftModel:
    bdlora = BdLoraConfig(target_modules_bd_a=["layer"], nblocks=2)
    config = MosLoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=["layer"], mixer=mixer, use_bdlora=bdlora)
    return get_peft_model(copy.deepcopy(base), config, autocast_adapter_dtype=False)


def test_bd_lora_mixes_within_the_blocks_of_A():
    torch.manual_seed(0)
    base = OneLayer(nn.Linear(6, 5)).double()
    model = bd_lora(base, "learnable")
    randomize_adapters(model)
    down, B = model.base_model.model.layer.lora_A["default"], model.base_model.model.layer.lora_B["default"].weight
    assert down.mixer.shape == (2, RANK // 2, RANK // 2)
    A = torch.block_diag(*down.raw.chunk(2))
    weight = base.layer.weight + SCALE * B @ torch.block_diag(*down.mixer) @ A
    x = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(model(x), nn.functional.linear(x, weight, base.layer.bias))
    torch.testing.assert_close(model.merge_and_unload().layer.weight, weight)


def test_the_butterfly_cannot_stay_within_the_blocks_of_bd_lora():
    with pytest.raises(UnsupportedError, match="keeps apart"):
        bd_lora(OneLayer(nn.Linear(6, 5)).double(), "butterfly")


def test_tied_embeddings_share_their_factors_and_add_the_same_update():
    torch.manual_seed(0)
    base = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=32,
            hidden_size=16,
            intermediate_size=24,
            num_hidden_layers=1,
            num_attention_heads=2,
            tie_word_embeddings=True,
        )
    )
    config = MosLoraConfig(r=RANK, target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True)
    model = get_peft_model(base, config)
    randomize_adapters(model)
    embedding, head = base.get_input_embeddings(), base.get_output_embeddings()
    torch.testing.assert_close(embedding.get_delta_weight("default"), head.get_delta_weight("default"))
    down = head.lora_A["default"]
    for tied, own in (
        (down.mixer, embedding.lora_embedding_mixer["default"]),
        (down.raw, embedding.lora_embedding_B.raw("default")),
        (head.lora_B["default"].weight, embedding.lora_embedding_A["default"]),
    ):
        assert tied.data_ptr() == own.data_ptr()
        assert torch.equal(tied, own.T)


def test_the_status_of_a_model_names_the_method():
    model, _, _ = adapted("linear")
    assert model.get_model_status().peft_types == {"default": "MOSLORA"}


def test_the_representation_names_the_mixer():
    model, _, _ = adapted("linear")
    assert "mixer=learnable" in repr(model)
