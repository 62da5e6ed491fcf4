"""FLoRA's core: the formula, the start, merging, saving and folding, of linear layers and convolutions."""

import peft
import pytest
import torch
from torch import nn
from torch.nn import functional

import moslora
from moslora import MosLoraConfig, UnsupportedError
from tests.helpers import relative_difference


class Toy(nn.Module):
    """A strided, padded convolution, a 1-d one and a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, (3, 2), stride=2, padding=1)
        self.line = nn.Conv1d(8, 6, 3)
        self.head = nn.Linear(6, 5)

    def forward(self, x):
        return self.head(self.line(self.conv(x).flatten(2)).mean(-1))


def adapted(random: bool = True) -> peft.PeftModel:
    torch.manual_seed(0)
    config = MosLoraConfig(r=4, lora_alpha=8, target_modules=["conv", "line", "head"], mixer="core")
    model = peft.get_peft_model(Toy(), config).double().eval()
    if random:
        for name, parameter in model.named_parameters():
            if name.endswith("mixer"):
                nn.init.normal_(parameter)
    return model


def x() -> torch.Tensor:
    return torch.randn(2, 3, 9, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def test_a_convolution_has_a_real_tucker_core_between_pointwise_convolutions():
    layer = adapted().base_model.model.conv
    down, up = layer.lora_A["default"], layer.lora_B["default"]
    assert (down.raw.shape, down.mixer.shape, up.weight.shape) == ((4, 3, 1, 1), (4, 4, 3, 2), (8, 4, 1, 1))
    inner = functional.conv2d(x(), down.raw)
    middle = functional.conv2d(inner, down.mixer, stride=2, padding=1)
    update = 2.0 * functional.conv2d(middle, up.weight)
    assert relative_difference(layer(x()), layer.base_layer(x()) + update) < 1e-14
    tucker = 2.0 * torch.einsum("oi,ijhw,jc->ochw", up.weight[..., 0, 0], down.mixer, down.raw[..., 0, 0])
    assert relative_difference(layer.get_delta_weight("default"), tucker) < 1e-14


def test_the_core_is_zero_at_the_start_and_learns_first():
    model = adapted(random=False)
    with model.disable_adapter():
        base = model(x())
    assert torch.equal(model(x()), base)
    model(x()).square().sum().backward()
    for name, parameter in model.named_parameters():
        if ".lora_" in name:
            assert (parameter.grad.abs().max() > 0) == name.endswith("mixer"), name
    head = model.base_model.model.head
    for factor in (head.lora_A["default"].raw, head.lora_B["default"].weight):
        assert factor.std().item() == pytest.approx((2 * 4) ** -0.5, rel=0.5)


def test_it_merges_and_comes_back_from_its_file_and_folds_into_plain_lora(tmp_path):
    model = adapted()
    expected = model(x())
    model.save_pretrained(tmp_path / "core")
    torch.manual_seed(0)
    again = peft.PeftModel.from_pretrained(Toy(), tmp_path / "core").double().eval()
    again.base_model.model.load_state_dict(
        {k: v for k, v in model.base_model.model.state_dict().items() if "lora" not in k}, strict=False
    )
    assert relative_difference(again(x()), expected) < 1e-6
    moslora.export_adapter(tmp_path / "core", tmp_path / "lora")
    assert relative_difference(moslora.to_lora(adapted())(x()), expected) < 1e-14
    assert relative_difference(adapted().merge_and_unload()(x()), expected) < 1e-13


def test_what_a_core_does_not_fit_is_refused():
    with pytest.raises(UnsupportedError, match="one group"):
        peft.get_peft_model(
            nn.Sequential(nn.Conv2d(4, 4, 3, groups=2)), MosLoraConfig(r=2, target_modules=["0"], mixer="core")
        )
    with pytest.raises(UnsupportedError, match="Embedding"):
        peft.get_peft_model(nn.Sequential(nn.Embedding(9, 4)), MosLoraConfig(target_modules=["0"], mixer="core"))
    with pytest.raises(UnsupportedError, match="gaussian"):
        peft.get_peft_model(
            nn.Sequential(nn.Linear(4, 4)),
            MosLoraConfig(target_modules=["0"], mixer="core", init_lora_weights="gaussian"),
        )
