"""Merging: a whole model folder that needs neither PEFT nor moslora."""

import pytest
import torch
import transformers

from moslora.checkpoint import merge_adapter
from moslora.errors import ConfigError
from tests.adapter.architectures import TRANSFORMERS
from tests.checkpoint.adapters import adapt, expected_updates
from tests.helpers import relative_difference, tiny_llama


@pytest.mark.parametrize("name", ["gpt2", "llama", "mixtral"])
def test_the_merged_folder_computes_what_the_adapted_model_computes(name, tmp_path):
    architecture = TRANSFORMERS[name]
    torch.manual_seed(0)
    base = architecture.build().eval()
    base.save_pretrained(tmp_path / "base")
    model = adapt(base, tmp_path / "a", std=0.1, r=4, **architecture.config)
    class_name = merge_adapter(tmp_path / "a", tmp_path / "merged", base=tmp_path / "base").class_name
    merged = getattr(transformers, class_name).from_pretrained(tmp_path / "merged").eval()
    plain = getattr(transformers, class_name).from_pretrained(tmp_path / "base").eval()
    with torch.no_grad():
        expected = model(**architecture.inputs()).logits
        assert relative_difference(merged(**architecture.inputs()).logits, expected) < 2e-6
        assert relative_difference(plain(**architecture.inputs()).logits, expected) > 1e-2


@pytest.mark.parametrize(("dtype", "largest"), [(torch.float32, 1e-6), (torch.bfloat16, 2**-8)])
def test_merged_weights_are_base_plus_the_formula_to_one_rounding(dtype, largest, tmp_path):
    base = tiny_llama().to(dtype)
    base.save_pretrained(tmp_path / "base")
    before = {name: weight.double().clone() for name, weight in base.state_dict().items()}
    base.name_or_path = str(tmp_path / "base")  # from which the adapter knows its base
    model = adapt(base, tmp_path / "a", std=0.1, r=4, target_modules=["q_proj", "down_proj"], use_rslora=True)
    merge_adapter(tmp_path / "a", tmp_path / "merged")
    merged = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "merged", dtype="auto")
    assert merged.dtype == dtype
    updates = expected_updates(model)
    assert len(updates) == 4
    for name, weight in merged.state_dict().items():
        expected = before[name] + updates.get(name.removesuffix(".weight"), 0)
        assert (weight.double() - expected).norm() <= largest * expected.norm(), name


def test_tokenizer_files_come_along_and_other_files_stay(tmp_path):
    base = tiny_llama()
    base.save_pretrained(tmp_path / "base")
    files = {
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "chat_template.jinja",
        "tokenizer.model",
    }
    for name in files | {"optimizer.pt", "README.md"}:
        (tmp_path / "base" / name).write_text(name)
    adapt(base, tmp_path / "a", target_modules=["q_proj"])
    merge_adapter(tmp_path / "a", tmp_path / "merged", base=tmp_path / "base")
    found = {path.name for path in (tmp_path / "merged").iterdir()}
    assert found == files | {"config.json", "generation_config.json", "model.safetensors"}
    assert (tmp_path / "merged" / "tokenizer.json").read_text() == "tokenizer.json"


def test_a_merge_without_a_base_says_how_to_name_one(tmp_path):
    adapt(tiny_llama(), tmp_path / "a", target_modules=["q_proj"])
    with pytest.raises(ConfigError, match=r"names no base model.*--base"):
        merge_adapter(tmp_path / "a", tmp_path / "merged")
