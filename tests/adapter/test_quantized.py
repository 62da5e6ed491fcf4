"""Adapters on bitsandbytes' 4-bit and 8-bit layers, on a CPU, held to float64 on the dequantised weights."""

import pytest
import torch
from peft import get_peft_model
from torch import Tensor, nn

from moslora import MosLoraConfig, UnsupportedError
from moslora.adapter import kernels_used
from tests.helpers import randomize_adapters, tiny_llama

bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs `pip install bitsandbytes`")

IDS = torch.randint(1, 60, (4, 32), generator=torch.Generator().manual_seed(0))
KINDS = ["nf4", "int8"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny Llama whose layers fill whole blocks of 64 weights."""
    folder = tmp_path_factory.mktemp("llama")
    tiny_llama(hidden_size=64, intermediate_size=128).save_pretrained(folder)
    return folder


def quantized(folder, kind: str, dtype: torch.dtype) -> nn.Module:
    from transformers import BitsAndBytesConfig, LlamaForCausalLM

    settings = {
        "nf4": {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": "nf4",
            "bnb_4bit_use_double_quant": True,
            "bnb_4bit_compute_dtype": dtype,
        },
        "int8": {"load_in_8bit": True},
    }
    config = BitsAndBytesConfig(**settings[kind])
    return LlamaForCausalLM.from_pretrained(folder, quantization_config=config, dtype=dtype, device_map="cpu")


def adapted(folder, kind: str, kernel: str, dtype: torch.dtype = torch.float32) -> nn.Module:
    config = MosLoraConfig(r=4, target_modules="all-linear", kernel=kernel)
    model = get_peft_model(quantized(folder, kind, dtype), config)
    randomize_adapters(model)
    return model.train()


def exact(folder, kind: str, dtype: torch.dtype) -> dict[str, Tensor]:
    """The same model with every quantised weight as the numbers it stands for, in float64 except inside norms."""
    model = quantized(folder, kind, dtype)
    for name, layer in list(model.named_modules()):
        if not isinstance(layer, (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)):
            continue
        if kind == "nf4":
            weight = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        else:
            weight = layer.weight.data.double() * layer.weight.SCB.double()[:, None] / 127
        plain = nn.Linear(layer.in_features, layer.out_features, bias=False)
        plain.weight = nn.Parameter(weight.double(), requires_grad=False)
        model.set_submodule(name, plain)
    model.is_loaded_in_4bit = model.is_loaded_in_8bit = model.is_quantized = False
    model = get_peft_model(model, MosLoraConfig(r=4, target_modules="all-linear", kernel="reference"))
    randomize_adapters(model)
    for parameter in (*model.parameters(), *model.buffers()):
        parameter.data = parameter.data.double()
    return loss_and_gradients(model.train())


def loss_and_gradients(model: nn.Module) -> dict[str, Tensor]:
    torch.manual_seed(3)
    model.zero_grad()
    loss = model(input_ids=IDS, labels=IDS).loss
    loss.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {"loss": loss.detach(), **{name: parameter.grad.clone() for name, parameter in trained.items()}}


def error(found: dict[str, Tensor], truth: dict[str, Tensor]) -> Tensor:
    """Root mean square, over loss and gradients, of their relative errors."""
    assert found.keys() == truth.keys()
    errors = [(found[name].double() - truth[name]).norm() / truth[name].norm() for name in truth]
    return torch.stack(errors).square().mean().sqrt()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_kernels_are_no_further_from_float64_than_twice_pefts_own_code(folder, kind, dtype):
    truth = exact(folder, kind, dtype)
    errors = {}
    for kernel in ("reference", "fused", "remat", "auto"):
        model = adapted(folder, kind, kernel, dtype)
        errors[kernel] = error(loss_and_gradients(model), truth)
        assert kernels_used(model) == {"peft" if kernel == "reference" else "adapter": 14}
    assert dtype != torch.float32 or errors["reference"] < 1e-4  # so the truth is the truth of these weights
    assert max(errors.values()) < 2 * errors["reference"]


@pytest.mark.parametrize("kernel", ["reference", "fused"])
@pytest.mark.parametrize("kind", KINDS)
def test_an_evaluation_between_training_steps_changes_no_gradient(folder, kind, kernel):
    """On a CPU with AVX512-BF16, bitsandbytes would repack 4-bit weights here, and gradients would be half wrong."""
    model = adapted(folder, kind, kernel)
    expected = loss_and_gradients(model)
    with torch.no_grad():
        model.eval()(IDS)
    found = loss_and_gradients(model.train())
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_weight_that_is_repacked_already_is_refused(folder):
    model = quantized(folder, "nf4", torch.float32)
    model.model.layers[1].mlp.up_proj.weight.quant_state.packing_format_for_cpu = True
    with pytest.raises(UnsupportedError, match=r"layers\.1\.mlp\.up_proj: bitsandbytes has repacked"):
        get_peft_model(model, MosLoraConfig(r=4, target_modules=["q_proj"]))
