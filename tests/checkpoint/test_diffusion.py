"""Exports for diffusion: stock diffusers loads both formats into a UNet shaped like SDXL's."""

import json

import pytest
import safetensors.torch
import torch
from peft import LoraConfig
from safetensors import safe_open

from moslora.checkpoint import export_adapter
from moslora.errors import ConfigError, UnsupportedError
from tests.adapter.architectures import sdxl_unet, unet_inputs
from tests.checkpoint.adapters import adapt, expected_updates
from tests.helpers import relative_difference, run_stock_peft, tiny_llama

SETTINGS = {
    "plain": {"r": 4, "lora_alpha": 8},
    "patterns": {
        "r": 4,
        "lora_alpha": 8,
        "use_rslora": True,
        "rank_pattern": {"to_q": 6},
        "alpha_pattern": {"conv1": 1, "to_k": 3},
        "mixer_pattern": {"to_v": "butterfly", "time_emb_proj": "identity"},
    },
}
TARGETS = ["to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "proj_in", "conv1", "conv_shortcut", "time_emb_proj"]

STOCK_DIFFUSERS = """
import pathlib, torch
from diffusers import UNet2DConditionModel
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin as Loader
root = pathlib.Path(args[0])
for source in [*root.glob("*/diffusers"), *root.glob("*/kohya.safetensors")]:
    unet = UNet2DConditionModel.from_pretrained(root / "base").eval()
    tensors, alphas, metadata = Loader.lora_state_dict(str(source), return_lora_metadata=True)
    Loader.load_lora_into_unet(tensors, network_alphas=alphas, unet=unet, metadata=metadata)
    with torch.no_grad():
        torch.save(unet(**torch.load(root / "inputs.pt")).sample, source.parent / f"{source.stem}.pt")
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    root = tmp_path_factory.mktemp("diffusion")
    sdxl_unet().save_pretrained(root / "base")
    torch.save(unet_inputs(), root / "inputs.pt")
    expected, models = {}, {}
    for name, config in SETTINGS.items():
        model = models[name] = adapt(sdxl_unet(), root / name / "adapter", std=0.1, target_modules=TARGETS, **config)
        with torch.no_grad():
            expected[name] = model(**unet_inputs()).sample
        export_adapter(root / name / "adapter", root / name / "diffusers", format="diffusers")
        export_adapter(root / name / "adapter", root / name / "kohya.safetensors", format="kohya")
    run_stock_peft(STOCK_DIFFUSERS, root)
    return root, expected, models


@pytest.mark.parametrize("format", ["diffusers", "kohya"])
@pytest.mark.parametrize("name", SETTINGS)
def test_stock_diffusers_computes_with_the_export_what_moslora_computes(exported, name, format):
    root, expected, _ = exported
    with torch.no_grad():
        plain = sdxl_unet()(**unet_inputs()).sample
    assert relative_difference(plain, expected[name]) > 1e-2, "the adapter does nothing, so nothing was tested"
    assert relative_difference(torch.load(root / name / f"{format}.pt"), expected[name]) < 2e-6


def test_the_header_of_the_diffusers_file_holds_ranks_and_alphas(exported):
    root, _, models = exported
    with safe_open(root / "patterns" / "diffusers" / "pytorch_lora_weights.safetensors", "pt") as file:
        header = json.loads(file.metadata()["lora_adapter_metadata"])
        assert all(key.startswith("unet.") for key in file.keys())  # noqa: SIM118
    config = LoraConfig(**{key.removeprefix("unet."): value for key, value in header.items()})
    assert not config.use_rslora, "the alphas stand for it"
    for name in expected_updates(models["patterns"]):
        layer = models["patterns"].get_base_model().get_submodule(name)
        r = config.rank_pattern.get(name, config.r)
        assert r == layer.r["default"]
        assert config.alpha_pattern.get(name, config.lora_alpha) / r == pytest.approx(layer.scaling["default"])


def test_alpha_over_rank_of_each_kohya_module_gives_the_update_of_the_formula(exported):
    root, _, models = exported
    tensors = safetensors.torch.load_file(root / "patterns" / "kohya.safetensors")
    assert {value.item() for key, value in tensors.items() if key.endswith(".alpha")} == {16.0}
    for name, expected in expected_updates(models["patterns"]).items():
        stem = f"lora_unet_{name.replace('.', '_')}"
        down, up = (tensors[f"{stem}.lora_{part}.weight"].double() for part in ("down", "up"))
        found = tensors[f"{stem}.alpha"] / len(down) * up @ down
        assert (found - expected).norm() / expected.norm() < 1e-6, name


def test_the_part_of_the_pipeline_has_to_be_known(tmp_path):
    adapt(tiny_llama(), tmp_path / "a", target_modules=["q_proj"])
    with pytest.raises(ConfigError, match=r"model\.layers\.0\.self_attn\.q_proj: say which part .*--component"):
        export_adapter(tmp_path / "a", tmp_path / "out", format="diffusers")
    with pytest.raises(UnsupportedError, match="no names for a transformer"):
        export_adapter(tmp_path / "a", tmp_path / "out.safetensors", format="kohya", component="transformer")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


STOCK_TEXT_ENCODER = """
import pathlib, torch, transformers
from diffusers.loaders import StableDiffusionXLLoraLoaderMixin as Loader
root = pathlib.Path(args[0])
for source in [root / "diffusers", root / "kohya.safetensors"]:
    encoder = transformers.CLIPTextModel.from_pretrained(root / "base").eval()
    tensors, alphas, metadata = Loader.lora_state_dict(str(source), return_lora_metadata=True)
    Loader.load_lora_into_text_encoder(
        tensors, network_alphas=alphas, text_encoder=encoder, prefix="text_encoder", metadata=metadata
    )
    with torch.no_grad():
        torch.save(encoder(torch.arange(1, 9)[None]).last_hidden_state, root / f"{source.stem}.pt")
"""


def test_stock_diffusers_loads_the_export_of_a_text_encoder(tmp_path):
    from transformers import CLIPTextConfig, CLIPTextModel

    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    encoder = CLIPTextModel(CLIPTextConfig(vocab_size=64, **sizes)).eval()
    encoder.save_pretrained(tmp_path / "base")
    config = {"r": 4, "lora_alpha": 8, "rank_pattern": {"q_proj": 6}, "alpha_pattern": {"k_proj": 3}}
    model = adapt(encoder, tmp_path / "a", target_modules=["q_proj", "k_proj", "out_proj"], **config)
    with torch.no_grad():
        expected = model(torch.arange(1, 9)[None]).last_hidden_state
    export_adapter(tmp_path / "a", tmp_path / "diffusers", format="diffusers", component="text_encoder")
    export_adapter(tmp_path / "a", tmp_path / "kohya.safetensors", format="kohya", component="text_encoder")
    run_stock_peft(STOCK_TEXT_ENCODER, tmp_path)
    for name in ("diffusers", "kohya"):
        assert relative_difference(torch.load(tmp_path / f"{name}.pt"), expected) < 2e-6, name
