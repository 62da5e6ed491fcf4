"""The export for llama.cpp, read back by the package gguf and compared with the formula."""

import gguf
import pytest
import torch

from moslora.checkpoint import export_adapter
from moslora.errors import ConfigError, UnsupportedError
from tests.checkpoint.adapters import adapt, expected_updates
from tests.checkpoint.toy import toy
from tests.helpers import tiny_llama

NAMES = {"q_proj": "attn_q", "k_proj": "attn_k", "o_proj": "attn_output", "down_proj": "ffn_down"}
CONFIG = {
    "target_modules": list(NAMES),
    "r": 4,
    "lora_alpha": 8,
    "use_rslora": True,
    "rank_pattern": {"k_proj": 6},
    "alpha_pattern": {"down_proj": 3},
}


def rows_in_llama_cpp(update: torch.Tensor, heads: int) -> torch.Tensor:
    """The rotary order, row by row: llama.cpp's rows 2 i and 2 i + 1 of a head are transformers' i and i + half."""
    size = len(update) // heads
    source = [head * size + i + k * size // 2 for head in range(heads) for i in range(size // 2) for k in range(2)]
    return update[source]


def export(tmp_path, base, **config):
    base.save_pretrained(tmp_path / "base")
    model = adapt(base, tmp_path / "a", **config)
    report = export_adapter(tmp_path / "a", tmp_path / "lora.gguf", format="gguf", base=tmp_path / "base")
    reader = gguf.GGUFReader(tmp_path / "lora.gguf")
    return model, report, reader, {each.name: torch.tensor(each.data) for each in reader.tensors}


def test_the_file_says_what_it_is_and_holds_every_update_in_llama_cpps_order(tmp_path):
    model, report, reader, tensors = export(tmp_path, tiny_llama(), **CONFIG)
    assert report.largest[1] < 1e-6
    fields = {
        "general.type": "adapter",
        "general.architecture": "llama",
        "adapter.type": "lora",
        "adapter.lora.alpha": 16.0,  # rsLoRA: 8 / sqrt(4) = 16 / 4
    }
    assert {key: reader.get_field(key).contents() for key in fields} == fields
    updates = expected_updates(model)
    assert len(tensors) == 2 * len(updates) == 16
    for name, update in updates.items():
        _, _, block, _, module = name.split(".")
        A, B = (tensors[f"blk.{block}.{NAMES[module]}.weight.{end}"].double() for end in ("lora_a", "lora_b"))
        heads = {"q_proj": 4, "k_proj": 2}.get(module)
        expected = rows_in_llama_cpp(update, heads) if heads else update
        found = 16.0 / len(A) * B @ A  # llama.cpp: alpha / rank of the tensor
        assert (found - expected).norm() / expected.norm() < 1e-6, name


def test_queries_and_keys_of_qwen_keep_their_order(tmp_path):
    from transformers import Qwen2Config, Qwen2ForCausalLM

    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 1, "num_attention_heads": 4}
    torch.manual_seed(0)
    base = Qwen2ForCausalLM(Qwen2Config(vocab_size=64, num_key_value_heads=2, **sizes))
    model, _, reader, tensors = export(tmp_path, base, target_modules=["q_proj"], r=4, lora_alpha=4)
    assert reader.get_field("general.architecture").contents() == "qwen2"
    A, B = (tensors[f"blk.0.attn_q.weight.{end}"].double() for end in ("lora_a", "lora_b"))
    expected = expected_updates(model)["model.layers.0.self_attn.q_proj"]
    assert (B @ A - expected).norm() / expected.norm() < 1e-6


def test_an_embedding_has_its_factor_of_words_transposed(tmp_path):
    model, _, _, tensors = export(tmp_path, tiny_llama(), target_modules=["embed_tokens"], r=4, lora_alpha=8)
    layer = model.get_base_model().model.embed_tokens
    expected = 2 * layer.lora_embedding_B["default"].double() @ layer.lora_embedding_A["default"].double()
    A, B = tensors["token_embd.weight.lora_a"].double(), tensors["token_embd.weight.lora_b"].double()
    assert A.shape == (64, 4)  # llama.cpp looks rows up in it
    assert ((2 * B @ A.T) - expected).norm() / expected.norm() < 1e-6


def test_a_tied_embedding_is_refused(tmp_path):
    base = tiny_llama(tie_word_embeddings=True)
    with pytest.raises(UnsupportedError, match=r"model\.embed_tokens: llama\.cpp has no tensor of its own"):
        export(tmp_path, base, target_modules=["embed_tokens"])


def test_another_architecture_and_a_missing_base_are_refused(tmp_path):
    from transformers import BertConfig

    adapt(toy(), tmp_path / "a", target_modules=["first"])
    with pytest.raises(ConfigError, match="names no base model: give --base"):
        export_adapter(tmp_path / "a", tmp_path / "lora.gguf", format="gguf")
    BertConfig().save_pretrained(tmp_path / "bert")
    with pytest.raises(UnsupportedError, match="base model's type is bert"):
        export_adapter(tmp_path / "a", tmp_path / "lora.gguf", format="gguf", base=tmp_path / "bert")
    tiny_llama().save_pretrained(tmp_path / "llama")
    with pytest.raises(UnsupportedError, match=r"first: llama\.cpp has no tensor"):
        export_adapter(tmp_path / "a", tmp_path / "lora.gguf", format="gguf", base=tmp_path / "llama")
    assert not list(tmp_path.glob("*.gguf*"))
