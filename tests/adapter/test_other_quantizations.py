"""Adapters on bases that torchao, HQQ, quanto, GPTQ and AWQ have quantised, through PEFT's own layers.

Forward and backward are held to float64 on the numbers that the quantised weights stand for, and a merge to the
rounding of the quantised format. torchao, hqq and optimum-quanto are in no extra: each test is skipped without its
library.
"""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora.awq import AwqLoraLinear
from peft.tuners.lora.gptq import GPTQLoraLinear
from torch import Tensor, nn

from moslora import MosLoraConfig, UnsupportedError
from moslora.adapter.layers import adopt_layer, mix
from tests.helpers import randomize_adapters, relative_difference, tiny_llama

IDS = torch.randint(1, 60, (4, 32), generator=torch.Generator().manual_seed(0))
TARGETS = ["q_proj", "down_proj"]
LIBRARIES = {"torchao": "torchao", "hqq": "hqq", "quanto": "optimum.quanto"}
parametrize_kinds = pytest.mark.parametrize("kind", LIBRARIES)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Llama whose layers fill whole groups of 64 weights."""
    folder = tmp_path_factory.mktemp("llama")
    tiny_llama(hidden_size=64, intermediate_size=128).save_pretrained(folder)
    return folder


def quantized(folder, kind: str) -> nn.Module:
    from transformers import LlamaForCausalLM, QuantoConfig, TorchAoConfig

    pytest.importorskip(LIBRARIES[kind], reason=f"needs `pip install {LIBRARIES[kind].replace('.', '-')}`")
    if kind == "hqq":
        model = LlamaForCausalLM.from_pretrained(folder)
        for name, layer in list(model.named_modules()):
            if isinstance(layer, nn.Linear) and name != "lm_head":
                model.set_submodule(name, hqq_linear(layer))
        return model
    if kind == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig

        config = TorchAoConfig(Int8WeightOnlyConfig())
    else:
        config = QuantoConfig(weights="int8")
    return LlamaForCausalLM.from_pretrained(folder, quantization_config=config, dtype=torch.float32, device_map="cpu")


def hqq_linear(layer: nn.Linear) -> nn.Module:
    """transformers 5.23 cannot load with HQQ, so the layer is made directly."""
    from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

    settings = BaseQuantizeConfig(nbits=4, group_size=64)
    return HQQLinear(copy.deepcopy(layer), settings, compute_dtype=torch.float32, device="cpu")


def dequantized(layer: nn.Module) -> Tensor:
    """The numbers (d_out, d_in) that the weight of a layer stands for."""
    found = layer.dequantize() if hasattr(layer, "dequantize") else layer.weight.dequantize()
    return found.detach().double()


def adapted(model: nn.Module, kernel: str = "auto") -> nn.Module:
    model = get_peft_model(model, MosLoraConfig(r=4, target_modules=TARGETS, kernel=kernel))
    randomize_adapters(model)
    return model


def exact(folder, kind: str) -> nn.Module:
    """The same model with every quantised weight as the numbers it stands for, in float64."""
    plain = tiny_llama(hidden_size=64, intermediate_size=128)
    for name, layer in quantized(folder, kind).named_modules():
        if isinstance(plain.get_submodule(name), nn.Linear) and name != "lm_head":
            plain.get_submodule(name).weight.data = dequantized(layer)
    model = adapted(plain, "reference")
    for tensor in (*model.parameters(), *model.buffers()):
        tensor.data = tensor.data.double()
    return model


def loss_and_gradients(model: nn.Module) -> dict[str, Tensor]:
    loss = model.train()(input_ids=IDS, labels=IDS).loss
    loss.backward()
    trained = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {"loss": loss, **trained}


def layers(model: nn.Module) -> dict[str, nn.Module]:
    return {name: module for name, module in model.named_modules() if hasattr(module, "lora_A")}


@parametrize_kinds
@pytest.mark.parametrize("kernel", ["reference", "auto"])
def test_loss_and_gradients_are_those_of_the_numbers_that_the_weights_stand_for(folder, kind, kernel):
    truth = loss_and_gradients(exact(folder, kind))
    found = loss_and_gradients(adapted(quantized(folder, kind), kernel))
    assert found.keys() == truth.keys()
    assert len(found) == 1 + 3 * 4
    assert max(relative_difference(found[name], truth[name]) for name in truth) < 1e-4


@pytest.mark.parametrize("kind", ["torchao", "hqq"])
def test_a_merge_is_the_quantised_sum(folder, kind):
    model = adapted(quantized(folder, kind))
    wanted = {
        name: dequantized(layer.base_layer) + layer.get_delta_weight("default").detach().double()
        for name, layer in layers(model).items()
    }
    model.merge_adapter()
    for name, layer in layers(model).items():
        if kind == "torchao":  # a row shares a step, of which 127 reach its largest number
            step = wanted[name].abs().amax(1, keepdim=True) / 127
            assert ((dequantized(layer.base_layer) - wanted[name]).abs() <= 0.51 * step).all()
        else:
            plain = nn.Linear(*reversed(wanted[name].shape), bias=False)
            plain.weight.data = wanted[name].float()
            assert relative_difference(dequantized(layer.base_layer), dequantized(hqq_linear(plain))) < 1e-6


def test_a_merge_into_quanto_is_refused_where_pefts_loses_the_adapter(folder):
    lora = get_peft_model(quantized(folder, "quanto"), LoraConfig(r=4, target_modules=TARGETS))
    randomize_adapters(lora)
    with torch.no_grad():
        base = lora.base_model.model
        with lora.disable_adapter():
            without = base(IDS).logits
        assert relative_difference(without, lora.merge_and_unload()(IDS).logits) == 0  # so the refusal is needed
    model = adapted(quantized(folder, "quanto"))
    with pytest.raises(UnsupportedError, match="optimum-quanto's, which PEFT leaves as they were"):
        model.merge_and_unload()


@pytest.mark.parametrize("peft_class", [GPTQLoraLinear, AwqLoraLinear])
def test_gptq_and_awq_layers_take_a_mixer_and_refuse_to_merge(peft_class):
    """PEFT's classes around a plain layer, since no backend of GPTQ or AWQ runs on a CPU here."""
    base = nn.Linear(24, 20, bias=False)
    config = MosLoraConfig(r=4, target_modules=["q_proj"], lora_alpha=8)
    layer = peft_class(base, "default", config=config, r=4, lora_alpha=8)
    adopt_layer(layer, "q_proj")
    mix(layer, "default", config)
    randomize_adapters(nn.ModuleDict({"layer": nn.ModuleDict({"x": layer})}))
    with torch.no_grad():
        layer.lora_B["default"].weight.normal_()
        x = torch.randn(3, 24)
        down, up = layer.lora_A["default"], layer.lora_B["default"].weight
        expected = x.double() @ (base.weight + 2 * up @ down.mixer @ down.raw).double().T
        assert relative_difference(layer(x), expected) < 1e-5
    with pytest.raises(UnsupportedError, match=f"PEFT's {peft_class.__name__} cannot merge"):
        layer.merge()
