"""Names in an adapter are names: none of them becomes a path."""

import json
from typing import get_args

import pytest
import torch
from safetensors.torch import save_file

from moslora.checkpoint import FormatName, export_adapter, import_adapter, mix_adapters
from moslora.errors import MoSLoRAError

NAMES = (
    "../../evil",
    "/tmp/evil",
    "unet/../../evil.attn.to_q",
    "text_encoder.../..",
    "down_blocks.0\\..\\evil",
    "a\0b",
)


@pytest.fixture
def write(tmp_path):
    """Writes an adapter with one layer of a given name, a plain LoRA or one of the authors'; returns its folder."""

    def write(name, authors=False):
        folder = tmp_path / "adapter"
        folder.mkdir()
        config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": [name], "lora_use_mixer": authors}
        (folder / "adapter_config.json").write_text(json.dumps(config))
        factors = {"A": torch.ones(2, 4), "B": torch.ones(4, 2)} | ({"AB": torch.eye(2)} if authors else {})
        tensors = {f"base_model.model.{name}.lora_{factor}.weight": tensor for factor, tensor in factors.items()}
        save_file(tensors, folder / "adapter_model.safetensors")
        return folder

    return write


def _files(folder):
    """Everything in the folder and beside it."""
    return set(folder.parent.rglob("*"))


def _is_inside(out, before):
    """Whether nothing is new but `out` and what is in it."""
    return all(path == out or out in path.parents for path in _files(out.parent) - before)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", get_args(FormatName))
def test_an_export_writes_only_where_it_was_told_to(write, kind, name, tmp_path):
    folder, before = write(name), _files(tmp_path)
    out = tmp_path / "exported"
    for component in (None, "unet", name):
        try:
            export_adapter(folder, out, format=kind, component=component, base=str(tmp_path / "no-base"))
            break
        except MoSLoRAError:
            continue
    assert _is_inside(out, before)


@pytest.mark.parametrize("name", NAMES)
def test_a_sum_is_written_only_where_it_was_told_to(write, name, tmp_path):
    folder, before, out = write(name), _files(tmp_path), tmp_path / "mixed"
    mix_adapters([folder, folder], out)
    assert out.is_dir()
    assert _is_inside(out, before)


@pytest.mark.parametrize("name", NAMES)
def test_an_import_is_written_only_where_it_was_told_to(write, name, tmp_path):
    folder, before, out = write(name, authors=True), _files(tmp_path), tmp_path / "imported"
    import_adapter(folder, out)
    assert out.is_dir()
    assert _is_inside(out, before)
