"""What MoSLoRA has to share with plain LoRA and with the base model, number for number."""

import copy
import json
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from torch import Tensor, nn

from moslora import MosLoraConfig, to_lora
from moslora.equation import butterfly_mixer
from tests.adapter.architectures import words
from tests.adapter.loss_curve import loss_curve
from tests.helpers import ROOT, randomize_adapters, relative_difference, run_stock_peft, tiny_llama

SETTINGS: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
BF16_ROUNDING = 2.0**-8
ALL_MIXERS = ["learnable", "butterfly", "identity"]

STOCK_LOSS_CURVES = """
import json
root, base_folder, settings, dropouts = args[0], args[1], json.loads(args[2]), json.loads(args[3])
sys.path.insert(0, root)
from peft import LoraConfig
from tests.adapter.loss_curve import loss_curve
from transformers import LlamaForCausalLM
curve = lambda p: loss_curve(LlamaForCausalLM.from_pretrained(base_folder), LoraConfig(lora_dropout=p, **settings))
print(json.dumps([curve(p) for p in dropouts]))
"""


@pytest.fixture(scope="module")
def stock_curves(tmp_path_factory):
    """Losses of stock PEFT's LoRA in another process, by dropout."""
    folder, dropouts = tmp_path_factory.mktemp("base"), [0.0, 0.1]
    tiny_llama().save_pretrained(folder)
    printed = run_stock_peft(STOCK_LOSS_CURVES, ROOT, folder, json.dumps(SETTINGS), json.dumps(dropouts))
    return dict(zip(dropouts, json.loads(printed), strict=True))


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_identity_mixer_has_the_loss_curve_of_stock_lora_bit_for_bit(dropout, stock_curves):
    config = MosLoraConfig(mixer="identity", lora_dropout=dropout, kernel="reference", **SETTINGS)
    ours = loss_curve(tiny_llama(), config)
    assert ours == stock_curves[dropout]
    assert ours[-1] < ours[0]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_a_mixer_frozen_at_identity_has_the_loss_curve_of_stock_lora_to_rounding(dropout, stock_curves):
    config = MosLoraConfig(init_mixer="identity", lora_dropout=dropout, **SETTINGS)
    ours = loss_curve(tiny_llama(), config, freeze_mixers)
    assert ours == pytest.approx(stock_curves[dropout], rel=1e-5)


def test_a_trained_mixer_leaves_the_loss_curve_of_stock_lora(stock_curves):
    ours = loss_curve(tiny_llama(), MosLoraConfig(init_mixer="identity", **SETTINGS))
    assert ours[:2] == pytest.approx(stock_curves[0.0][:2], rel=1e-5), "the first step moves B only"
    assert ours[-1] != pytest.approx(stock_curves[0.0][-1], rel=1e-4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_identity_mixer_has_the_loss_curve_of_stock_lora_on_cuda():
    curves = [
        loss_curve(tiny_llama(), config(lora_dropout=0.1, **more, **SETTINGS), device="cuda")
        for config, more in ((LoraConfig, {}), (MosLoraConfig, {"mixer": "identity"}))
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


def freeze_mixers(model: nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if name.endswith(".mixer"):
            parameter.requires_grad_(False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mixer", ALL_MIXERS)
def test_while_B_is_zero_the_output_is_bitwise_that_of_the_base_model(mixer, dtype):
    base = tiny_llama().to(dtype)
    expected = base(words()).logits
    model = get_peft_model(copy.deepcopy(base), MosLoraConfig(mixer=mixer, lora_dropout=0.1, **SETTINGS))
    assert torch.equal(model(words()).logits, expected)
    assert torch.equal(model.merge_and_unload()(words()).logits, expected)


def random_model(
    mixer: str, dtype: torch.dtype, full_precision_adapter: bool = True, **settings: Any
) -> tuple[nn.Module, nn.Module]:
    """A copy of a base model with a random adapter, and the base model in `dtype`."""
    base = tiny_llama().to(dtype)
    config = MosLoraConfig(mixer=mixer, **SETTINGS, **settings)
    model = get_peft_model(copy.deepcopy(base), config, autocast_adapter_dtype=full_precision_adapter).eval()
    randomize_adapters(model, std=0.1)
    return model, base


def exact_updates(model: nn.Module) -> dict[str, Tensor]:
    """scale * B @ M @ A of every adapted layer, in float64."""
    updates = {}
    for name, layer in lora_layers(model).items():
        down, B = layer.lora_A["default"], layer.lora_B["default"].weight.double()
        r, kind = layer.r["default"], getattr(down, "mixer_kind", "identity")
        M = {"butterfly": butterfly_mixer(r - r % 2), "identity": torch.eye(r)}.get(kind, getattr(down, "mixer", None))
        A = down.weight if kind == "identity" else down.raw
        updates[name] = (layer.scaling["default"] * B @ M.double() @ A.double()).detach()
    return updates


def lora_layers(model: nn.Module) -> dict[str, LoraLayer]:
    return {
        name.removeprefix("base_model.model."): module
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }


TOLERANCES = [(torch.float32, 1e-6), (torch.bfloat16, BF16_ROUNDING)]


@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("mixer", ALL_MIXERS)
def test_a_merged_float32_weight_is_the_formula(mixer, use_rslora):
    model, base = random_model(mixer, torch.float32, use_rslora=use_rslora)
    updates = exact_updates(model)
    merged = model.merge_and_unload(safe_merge=True)
    assert len(updates) == 14
    for name, update in updates.items():
        expected = base.get_submodule(name).weight.double() + update
        assert relative_difference(merged.get_submodule(name).weight, expected) < 1e-6


@pytest.mark.parametrize("mixer", ALL_MIXERS)
def test_a_merged_bfloat16_weight_is_the_formula_to_one_rounding_of_the_update_and_one_of_the_sum(mixer):
    model, base = random_model(mixer, torch.bfloat16)
    updates = exact_updates(model)
    merged = model.merge_and_unload(safe_merge=True)
    for name, update in updates.items():
        expected = base.get_submodule(name).weight.double() + update
        difference = (merged.get_submodule(name).weight.double() - expected).abs()
        assert (difference <= BF16_ROUNDING * (update.abs() + expected.abs())).all()


@pytest.mark.parametrize(("dtype", "tolerance"), TOLERANCES)
@pytest.mark.parametrize("mixer", ALL_MIXERS)
def test_an_exported_update_is_the_formula_to_one_rounding(mixer, dtype, tolerance):
    model, _ = random_model(mixer, dtype, full_precision_adapter=False)
    updates = exact_updates(model)
    layers = lora_layers(to_lora(model))
    assert type(model.peft_config["default"]) is LoraConfig
    for name, update in updates.items():
        layer = layers[name]
        A, B = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        assert A.dtype == dtype
        assert relative_difference(layer.scaling["default"] * B.double() @ A.double(), update) < tolerance


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("mixer", ALL_MIXERS)
def test_merging_the_adapter_and_merging_its_export_give_the_same_weights_bit_for_bit(mixer, dtype):
    model, _ = random_model(mixer, dtype, full_precision_adapter=False)
    exported = to_lora(copy.deepcopy(model)).merge_and_unload().state_dict()
    merged = model.merge_and_unload().state_dict()
    assert merged.keys() == exported.keys()
    assert all(torch.equal(merged[name], exported[name]) for name in merged)


@pytest.mark.parametrize("mixer", ALL_MIXERS)
def test_merged_and_exported_models_compute_what_the_adapted_one_does(mixer):
    model, _ = random_model(mixer, torch.float32)
    with torch.no_grad():
        adapted = model(words()).logits
        exported = to_lora(copy.deepcopy(model))(words()).logits
        merged = model.merge_and_unload()(words()).logits
    assert relative_difference(exported, adapted) < 1e-6
    assert relative_difference(merged, adapted) < 1e-6
