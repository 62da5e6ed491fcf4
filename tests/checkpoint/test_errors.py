"""Damaged and foreign files: the message names file, key, found and expected, and nothing is written."""

import json
import math
import shutil

import pytest
import safetensors.torch
import torch

from moslora.checkpoint import export_adapter, import_adapter, load_adapter, merge_adapter
from moslora.errors import CheckpointError, MoSLoRAError, UnsupportedError
from tests.checkpoint.adapters import adapt
from tests.helpers import tiny_llama

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
LAYER = "base_model.model.model.layers.0.self_attn.q_proj"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A good adapter and its base model."""
    root = tmp_path_factory.mktemp("saved")
    base = tiny_llama()
    base.save_pretrained(root / "base")
    base.name_or_path = str(root / "base")
    adapt(base, root / "adapter", target_modules=["q_proj", "v_proj"], r=4)
    return root


@pytest.fixture
def adapter(saved, tmp_path):
    """A copy to damage."""
    return shutil.copytree(saved / "adapter", tmp_path / "adapter")


def refused(adapter, *words):
    """Every command refuses the folder with a message that holds these words, and leaves nothing behind."""
    jobs = (
        lambda out: export_adapter(adapter, out, format="peft"),
        lambda out: export_adapter(adapter, out, format="diffusers", component="text_encoder"),
        lambda out: merge_adapter(adapter, out),
    )
    for job in jobs:
        with pytest.raises(CheckpointError) as caught:
            job(adapter.parent / "deep" / "out")
        for word in words:
            assert word in str(caught.value), str(caught.value)
        assert [path.name for path in adapter.parent.iterdir()] == ["adapter"]


def change(adapter, **tensors):
    """Replace tensors by the ends of their keys, in the first layer; None removes one."""
    path = adapter / WEIGHTS
    state = safetensors.torch.load_file(path)
    for end, tensor in tensors.items():
        key = f"{LAYER}.lora_{end.replace('_', '.')}"
        del state[key]
        if tensor is not None:
            state[key] = tensor
    safetensors.torch.save_file(state, path)


@pytest.mark.parametrize("part", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_file_cut_off_anywhere_is_refused(adapter, name, part):
    path = adapter / name
    content = path.read_bytes()
    kept = math.floor(len(content.rstrip()) * part)  # a config without its last newline is still whole
    path.write_bytes(content[:kept])
    refused(adapter, str(path), f"found {kept} bytes")


def test_one_byte_too_few_or_too_many_is_refused(adapter):
    path = adapter / WEIGHTS
    content = path.read_bytes()
    for damaged in (content[:-1], content + b"\0"):
        path.write_bytes(damaged)
        refused(adapter, str(path), f"found {len(damaged)} bytes")


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
def test_a_missing_file_is_named(adapter, name):
    (adapter / name).unlink()
    refused(adapter, str(adapter / name), "no such file")


@pytest.mark.parametrize("content", [b"[1, 2]", b"not json", b"\xff\xfe\x00", b"null", b'{"a": '])
def test_a_foreign_config_is_refused(adapter, content):
    (adapter / CONFIG).write_bytes(content)
    refused(adapter, str(adapter / CONFIG), "expected" if content in (b"[1, 2]", b"null") else "Expected")


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("peft_type", "LOHA", ("peft_type", "'LOHA'", "MOSLORA")),
        ("peft_type", None, ("peft_type", "None")),
        ("r", "4", ("r: found '4'", "expected a number")),
        ("r", 5, ("lora_A.raw", "shape (4, 32)", "shape (5, ...)")),
        ("lora_alpha", None, ("lora_alpha", "None")),
        ("mixer", "learned", ("mixer", "'learned'", "learnable")),
        ("mixer", "identity", ("lora_A.weight", "found no such key")),
        ("mixer", "butterfly", ("lora_A.mixer", "found a tensor", "'butterfly'")),
        ("lora_use_mixer", True, ("lora_use_mixer", "moslora import")),
    ],
)
def test_a_config_that_does_not_fit_is_refused(adapter, key, value, words):
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**config, key: value}))
    refused(adapter, str(adapter), *words)


def test_a_file_of_another_kind_under_the_name_is_refused(adapter):
    torch.save({"a": torch.zeros(2)}, adapter / WEIGHTS)
    refused(adapter, str(adapter / WEIGHTS), "bytes")
    safetensors.torch.save_file({"model.embed_tokens.weight": torch.zeros(4, 4)}, adapter / WEIGHTS)
    refused(adapter, str(adapter / WEIGHTS), "found no LoRA layer", "model.embed_tokens.weight", "lora_B.weight")


@pytest.mark.parametrize("end", ["A_mixer", "A_raw", "B_weight"])
def test_a_missing_factor_is_named(adapter, end):
    change(adapter, **{end: None})
    refused(adapter, str(adapter / WEIGHTS), f"{LAYER}.lora_{end.replace('_', '.')}", "found no such key")


@pytest.mark.parametrize(
    ("end", "shape", "expected"),
    [
        ("A_mixer", (4, 5), "(4, 4)"),
        ("A_mixer", (2, 4, 4), "(4, 4)"),
        ("A_raw", (3, 32), "(4, ...)"),
        ("A_raw", (128,), "(4, ...)"),
        ("B_weight", (32, 3), "(outputs, 4)"),
        ("B_weight", (32, 2), "(outputs, 4)"),
        ("B_weight", (32, 4, 1), "(outputs, 4)"),
        ("B_weight", (32, 0), "(outputs, 4)"),
    ],
)
def test_a_wrong_shape_is_named(adapter, end, shape, expected):
    change(adapter, **{end: torch.zeros(shape)})
    key = f"{LAYER}.lora_{end.replace('_', '.')}"
    refused(adapter, str(adapter / WEIGHTS), key, f"found shape {shape}", f"expected shape {expected}")


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(("end", "shape"), [("A_mixer", (4, 4)), ("A_raw", (4, 32)), ("B_weight", (32, 4))])
def test_a_number_that_is_none_is_named(adapter, end, shape, value):
    tensor = torch.zeros(shape)
    tensor[1, 2] = value
    change(adapter, **{end: tensor})
    refused(adapter, f"{LAYER}.lora_{end.replace('_', '.')}", f"found 1 of {tensor.numel()} values", "expected finite")


@pytest.mark.parametrize("end", ["lora_AB.weight", "lora_mixer.weight", "lora_mixer"])
def test_a_mixer_of_the_authors_code_is_never_left_out(adapter, end):
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**config, "peft_type": "LORA"}))
    state = safetensors.torch.load_file(adapter / WEIGHTS)
    names = {"lora_A.raw": "lora_A.weight", "lora_A.mixer": end}
    state = {key.replace(old, names[old]): value for key, value in state.items() for old in names if old in key} | {
        key: value for key, value in state.items() if "lora_B" in key
    }
    safetensors.torch.save_file(state, adapter / WEIGHTS)
    refused(adapter, f"{LAYER}.{end}", "moslora import")


def test_whole_numbers_are_no_weights(adapter):
    change(adapter, A_mixer=torch.ones(4, 4, dtype=torch.int32))
    refused(adapter, f"{LAYER}.lora_A.mixer", "torch.int32", "floating")


def test_block_diagonal_factors_are_refused_with_the_way_out(adapter):
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps({**config, "use_bdlora": {"nblocks": 2}}))
    with pytest.raises(UnsupportedError, match=r"use_bdlora.*moslora\.to_lora"):
        load_adapter(adapter)


def test_a_good_folder_passes_so_that_the_refusals_mean_something(saved):
    assert len(load_adapter(saved / "adapter").layers) == 4


def test_a_base_model_that_does_not_fit_is_refused_before_anything_is_written(saved, adapter):
    other = adapter.parent / "other"
    tiny_llama(num_hidden_layers=1).save_pretrained(other)
    with pytest.raises(MoSLoRAError, match=r"does not fit the base model .*layers\.1"):
        merge_adapter(adapter, adapter.parent / "out", base=other)
    tiny_llama(hidden_size=16).save_pretrained(other)
    with pytest.raises(MoSLoRAError, match="does not fit the base model"):
        merge_adapter(adapter, adapter.parent / "out", base=other)
    with pytest.raises(MoSLoRAError, match="Cannot read the base model"):
        merge_adapter(adapter, adapter.parent / "out", base=adapter.parent / "nowhere")
    assert {path.name for path in adapter.parent.iterdir()} == {"adapter", "other"}


def test_an_existing_target_is_never_touched(saved, adapter):
    out = adapter.parent / "out"
    out.write_text("precious")
    for job in (export_adapter, merge_adapter, import_adapter):
        with pytest.raises(MoSLoRAError, match="exists already"):
            job(adapter, out)
    assert out.read_text() == "precious"
