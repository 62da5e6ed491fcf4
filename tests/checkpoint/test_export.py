"""Exports to PEFT's own folder, and what holds for every format: exactness, refusals, all or nothing."""

import dataclasses
import json

import pytest
import safetensors.torch
import torch
from peft import LoraConfig

from moslora.checkpoint import export, export_adapter, load_adapter
from moslora.errors import CheckpointError, ConfigError, UnsupportedError
from tests.checkpoint.adapters import EVERY_LAYER, VARIANTS, adapt, adapted_toy, expected_updates, outputs
from tests.checkpoint.toy import toy
from tests.helpers import relative_difference, run_stock_peft, tiny_llama

MIXERS = ("learnable", "butterfly", "identity")

STOCK_PEFT = """
import pathlib, torch
from peft import PeftModel
from tests.checkpoint.toy import toy, words
for folder in pathlib.Path(args[0]).glob("*/lora"):
    model = PeftModel.from_pretrained(toy(), folder).eval()
    with torch.no_grad():
        torch.save(model(words()), folder.parent / "outputs.pt")
"""


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Every variant with every mixer, and what needs more than A and B: exported and run by stock PEFT."""
    root = tmp_path_factory.mktemp("exports")
    settings = {f"{name}-{mixer}": {**VARIANTS[name], "mixer": mixer} for name in VARIANTS for mixer in MIXERS}
    linear = {"target_modules": ["first", "second"], "target_parameters": None}
    settings["dora"] = {**linear, "use_dora": True}
    settings["bias"] = {**linear, "lora_bias": True, "bias": "lora_only"}
    settings["modules_to_save"] = {**linear, "modules_to_save": ["head"]}
    settings["pissa"] = {**linear, "init_lora_weights": "pissa"}
    settings["mixer_pattern"] = {"mixer_pattern": {"first": "identity", "experts.*": "butterfly"}}
    models, reports = {}, {}
    for name, config in settings.items():
        models[name] = adapted_toy(root / name / "adapter", **config)
        if name == "modules_to_save":
            models[name].get_base_model().head.modules_to_save["default"].weight.data.mul_(2)
            models[name].save_pretrained(root / name / "adapter")
        reports[name] = export_adapter(root / name / "adapter", root / name / "lora")
    run_stock_peft(STOCK_PEFT, root)
    return root, models, reports


MIXED = [f"{name}-{mixer}" for name in VARIANTS for mixer in MIXERS]
CASES = [*MIXED, "dora", "bias", "modules_to_save", "pissa", "mixer_pattern"]


@pytest.mark.parametrize("name", CASES)
def test_stock_peft_computes_with_the_export_what_moslora_computes(exported, name):
    root, models, _ = exported
    expected = outputs(models[name])
    assert relative_difference(torch.load(root / name / "outputs.pt"), expected) < 1e-6
    assert relative_difference(outputs(toy()), expected) > 1e-2, "the adapter does nothing, so nothing was tested"


@pytest.mark.parametrize("name", CASES)
def test_the_report_has_every_layer_and_stays_below_one_rounding(exported, name):
    root, _, reports = exported
    report = reports[name]
    assert report.differences.keys() == load_adapter(root / name / "adapter").layers.keys()
    layer, largest = report.largest
    assert largest == report.differences[layer] == max(report.differences.values()) <= 1e-6


@pytest.mark.parametrize("name", MIXED)
def test_the_exported_factors_multiply_to_the_formula(exported, name):
    root, models, _ = exported
    plain = load_adapter(root / name / "lora")
    expected = expected_updates(models[name])
    assert expected.keys() == {"first", "second"}
    for layer_name, update in expected.items():
        layer = plain.layers[layer_name]
        assert layer.mixer == "identity"
        found = layer.scale * layer.B.double() @ layer.A.double()
        assert (found - update).norm() / update.norm() < 1e-7


def test_the_exported_config_is_a_stock_one_of_the_same_rank(exported):
    root, _, _ = exported
    before, after = (
        json.loads((root / "patterns-learnable" / each / "adapter_config.json").read_text())
        for each in ("adapter", "lora")
    )
    assert after["peft_type"] == "LORA"
    assert before.keys() - after.keys() >= {"mixer", "init_mixer", "mixer_pattern"}
    assert after.keys() <= LoraConfig().to_dict().keys() | {"peft_version"}
    assert all(after[key] == before[key] for key in after if key != "peft_type")


def test_bfloat16_is_within_one_rounding_and_float32_keeps_what_it_rounds_away(tmp_path):
    model = adapted_toy(tmp_path / "a", r=4, dtype=torch.bfloat16)
    report = export_adapter(tmp_path / "a", tmp_path / "lora")
    assert report.tolerance == 2**-8
    assert 1e-4 < report.largest[1] < 2**-8
    stored = safetensors.torch.load_file(tmp_path / "lora" / "adapter_model.safetensors")
    assert {value.dtype for key, value in stored.items() if "lora" in key} == {torch.bfloat16}
    exact = export_adapter(tmp_path / "a", tmp_path / "exact", dtype="float32")
    assert exact.largest[1] < exact.tolerance == 1e-6
    update = expected_updates(model)["first"]
    layer = load_adapter(tmp_path / "exact").layers["first"]
    assert (layer.scale * layer.B.double() @ layer.A.double() - update).norm() / update.norm() < 1e-6


def test_a_product_beyond_float16_is_refused_and_leaves_nothing(tmp_path):
    adapted_toy(tmp_path / "a", r=4)
    path = tmp_path / "a" / "adapter_model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["base_model.model.first.lora_A.mixer"] *= 1e6
    safetensors.torch.save_file(tensors, path)
    with pytest.raises(UnsupportedError, match=r"first: .* above the largest torch.float16 number"):
        export_adapter(tmp_path / "a", tmp_path / "lora", dtype="float16")
    assert [each.name for each in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("format", ["peft", "diffusers", "kohya", "gguf"])
def test_a_file_that_reads_back_differently_is_never_kept(format, tmp_path, monkeypatch):
    base = tiny_llama()
    base.save_pretrained(tmp_path / "base")
    adapt(base, tmp_path / "a", target_modules=["q_proj"])
    monkeypatch.setattr(export.Adapter, "folded", _folded_badly)
    options = {"gguf": {"base": tmp_path / "base"}, "peft": {}}.get(format, {"component": "text_encoder"})
    out = tmp_path / "new" / {"kohya": "x.safetensors", "gguf": "x.gguf"}.get(format, "x")
    with pytest.raises(CheckpointError, match=r"self_attn\.q_proj: .* differs by .* expected at most"):
        export_adapter(tmp_path / "a", out, format=format, **options)
    assert {each.name for each in tmp_path.iterdir()} == {"base", "a"}


def _folded_badly(adapter, dtype=None):
    """What an export without the mixer would write."""
    layers = {name: dataclasses.replace(layer, M=None, mixer="identity") for name, layer in adapter.layers.items()}
    return dataclasses.replace(adapter, config={**adapter.config, "peft_type": "LORA"}, layers=layers)


def test_an_existing_target_is_not_touched(tmp_path):
    adapted_toy(tmp_path / "a", r=4)
    (tmp_path / "out").mkdir()
    with pytest.raises(ConfigError, match="exists already"):
        export_adapter(tmp_path / "a", tmp_path / "out")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"use_dora": True}, "first.lora_magnitude_vector"),
        ({"lora_bias": True}, "first.lora_B.bias"),
        ({"modules_to_save": ["head"]}, "head.weight"),
        ({"bias": "all"}, "conv.bias"),
        ({"target_modules": ["first", "embed"]}, "embed: an embedding"),
        ({"target_parameters": ["experts.up"]}, "experts: 3 experts"),
        ({"init_lora_weights": "pissa", "init_mixer": "orthogonal"}, "init_lora_weights='pissa'"),
        ({"use_qalora": True, "qalora_group_size": 4}, "use_qalora"),
    ],
)
@pytest.mark.parametrize("format", ["diffusers", "kohya"])
def test_what_a_format_cannot_hold_is_refused_by_name(config, found, format, tmp_path):
    adapt(toy(), tmp_path / "a", **{"target_modules": ["first"], **config})
    out = tmp_path / "out.safetensors"
    with pytest.raises(UnsupportedError, match="cannot hold") as caught:
        export_adapter(tmp_path / "a", out, format=format, component="unet")
    assert found in str(caught.value)
    assert not out.exists()


def test_options_that_a_format_does_not_read_are_refused(tmp_path):
    adapted_toy(tmp_path / "a", r=4)
    for options, message in (
        ({"format": "peft", "base": "x"}, "--base"),
        ({"format": "peft", "component": "unet"}, "--component"),
        ({"format": "kohya"}, "ending .safetensors"),
        ({"format": "gguf"}, "ending .gguf"),
        ({"format": "onnx"}, "Unknown format 'onnx'"),
    ):
        with pytest.raises(ConfigError, match=message):
            export_adapter(tmp_path / "a", tmp_path / "out", **options)


def test_parameters_of_one_module_with_different_ranks_are_told_apart_by_their_mixers_or_refused(tmp_path):
    ranks = {"rank_pattern": {"experts.up": 2}, "r": 4}
    adapted_toy(tmp_path / "a", **ranks)
    found = load_adapter(tmp_path / "a").layers
    assert sorted(layer.r for name, layer in found.items() if "experts" in name) == [2, 4]
    adapted_toy(tmp_path / "b", mixer="identity", **ranks)
    with pytest.raises(CheckpointError, match=r"experts.*: found 2 settings"):
        load_adapter(tmp_path / "b")


def test_every_layer_kind_of_the_toy_is_adapted(tmp_path):
    adapted_toy(tmp_path / "a", r=4)
    layers = load_adapter(tmp_path / "a").layers
    assert {*EVERY_LAYER["target_modules"], "experts", "experts.base_layer"} == layers.keys()
    assert layers["experts"].experts == 3
    assert len(layers["grouped"].products()) == 2
    assert layers["embed"].is_embedding
