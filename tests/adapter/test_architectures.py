"""Attach, train one step, save, load, merge, export, load in stock PEFT or diffusers: on small real architectures."""

import copy

import pytest
import torch
from peft import PeftModel, get_peft_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from torch import Tensor, nn

from moslora import MosLoraConfig, to_lora
from tests.adapter.architectures import TRANSFORMERS, Architecture, sdxl_unet, unet_inputs
from tests.helpers import randomize_adapters, relative_difference, run_stock_peft

STOCK_PEFT = """
import torch, transformers
from peft import PeftModel
base_folder, class_name, adapter, inputs, outputs = args
base = getattr(transformers, class_name).from_pretrained(base_folder).eval()
model = PeftModel.from_pretrained(base, adapter).eval()
with torch.no_grad():
    torch.save(model(**torch.load(inputs)).logits, outputs)
"""

STOCK_DIFFUSERS = """
import torch
from diffusers import UNet2DConditionModel
base_folder, adapter, inputs, outputs = args
unet = UNet2DConditionModel.from_pretrained(base_folder).eval()
unet.load_lora_adapter(adapter, prefix=None, use_safetensors=True)
with torch.no_grad():
    torch.save(unet(**torch.load(inputs)).sample, outputs)
"""


def train_one_step(model: nn.Module, loss: Tensor) -> None:
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.05)
    loss.backward()
    optimizer.step()


def build(architecture: Architecture) -> nn.Module:
    torch.manual_seed(0)
    return architecture.build().eval()


@pytest.mark.parametrize("mixer", ["learnable", "butterfly"])
@pytest.mark.parametrize("name", TRANSFORMERS)
def test_an_adapted_transformer_trains_saves_loads_and_merges(name, mixer, tmp_path):
    architecture = TRANSFORMERS[name]
    base, inputs = build(architecture), architecture.inputs()
    plain = base(**inputs).logits
    model = get_peft_model(copy.deepcopy(base), MosLoraConfig(r=4, mixer=mixer, **architecture.config)).eval()
    start = model(**inputs).logits
    if name == "t5":  # its attention reads the memory layout, which any adapter changes: stock LoRA differs as well
        assert relative_difference(start, plain) < 1e-6
    else:
        assert torch.equal(start, plain), "B = 0, so the output is bitwise that of the base model"

    mixers = [p for n, p in model.named_parameters() if "mixer" in n]
    assert bool(mixers) == (mixer == "learnable")
    randomize_adapters(model, std=0.1)
    before = {n: p.clone() for n, p in model.named_parameters() if p.requires_grad}
    train_one_step(model, model(**inputs).logits.square().mean())
    unmoved = [n for n, p in model.named_parameters() if n in before and torch.equal(p, before[n])]
    assert not unmoved, "a trained parameter did not move"

    with torch.no_grad():
        trained = model(**inputs).logits
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
        assert torch.equal(loaded(**inputs).logits, trained), "a reloaded adapter is the same bit for bit"
        merged = loaded.merge_and_unload(safe_merge=True)
        assert relative_difference(merged(**inputs).logits, trained) < 2e-6


@pytest.mark.parametrize("name", TRANSFORMERS)
def test_the_export_of_a_transformer_runs_in_stock_peft(name, tmp_path):
    architecture = TRANSFORMERS[name]
    base, inputs = build(architecture), architecture.inputs()
    base.save_pretrained(tmp_path / "base")
    model = get_peft_model(base, MosLoraConfig(r=4, use_rslora=True, **architecture.config)).eval()
    randomize_adapters(model, std=0.1)
    with torch.no_grad():
        expected = model(**inputs).logits
    to_lora(model).save_pretrained(tmp_path / "lora")
    torch.save(inputs, tmp_path / "inputs.pt")
    class_name = type(model.get_base_model()).__name__
    run_stock_peft(
        STOCK_PEFT, tmp_path / "base", class_name, tmp_path / "lora", tmp_path / "inputs.pt", tmp_path / "outputs.pt"
    )
    assert relative_difference(torch.load(tmp_path / "outputs.pt"), expected) < 2e-6


def test_an_sdxl_unet_trains_saves_and_its_export_runs_in_stock_diffusers(tmp_path):
    unet, inputs = sdxl_unet(), unet_inputs()
    plain = unet(**inputs).sample
    unet.save_pretrained(tmp_path / "base")
    # to_out is a Sequential, conv1 a convolution, time_emb_proj is outside of attention.
    targets = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "time_emb_proj"]
    unet.add_adapter(MosLoraConfig(r=4, lora_alpha=4, target_modules=targets))
    assert torch.equal(unet(**inputs).sample, plain)
    train_one_step(unet, unet(**inputs).sample.square().mean())
    randomize_adapters(unet, std=0.1)
    train_one_step(unet, unet(**inputs).sample.square().mean())
    with torch.no_grad():
        trained = unet(**inputs).sample
    assert relative_difference(trained, plain) > 1e-2

    native = get_peft_model_state_dict(unet)
    again = sdxl_unet()
    again.add_adapter(MosLoraConfig(r=4, lora_alpha=4, target_modules=targets))
    assert not set_peft_model_state_dict(again, native).unexpected_keys
    with torch.no_grad():
        assert torch.equal(again(**inputs).sample, trained)

    to_lora(unet).save_lora_adapter(tmp_path / "lora")
    torch.save(inputs, tmp_path / "inputs.pt")
    run_stock_peft(
        STOCK_DIFFUSERS, tmp_path / "base", tmp_path / "lora", tmp_path / "inputs.pt", tmp_path / "outputs.pt"
    )
    assert relative_difference(torch.load(tmp_path / "outputs.pt"), trained) < 2e-6
