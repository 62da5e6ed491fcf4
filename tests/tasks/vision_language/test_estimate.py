"""Trained parameters and memory of the paper's two models, from their configs alone."""

import dataclasses
import json

import pytest
import torch
import transformers

from moslora.adapter import saved_bytes
from moslora.cli import main
from moslora.methods import trained_parameters
from moslora.recipes import configure, load_recipe
from moslora.tasks.vision_language.attach import attach_adapter
from moslora.tasks.vision_language.config import VisionLanguageTrainConfig
from moslora.tasks.vision_language.estimate import estimate, weight_bytes
from moslora.tasks.vision_language.model import empty_model, load_config
from moslora.tasks.vision_language.train import load_adapted

from .conftest import IMAGE_SIZE

VIT_L_336 = {
    "model_type": "clip_vision_model",
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "image_size": 336,
    "patch_size": 14,
    "projection_dim": 768,
}
LLAMA_3_8B = {
    "model_type": "llama",
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "vocab_size": 128320,  # with room for <image> and padding
    "max_position_embeddings": 8192,
    "tie_word_embeddings": False,
}
# InternLM2 in Llama's form: the same layers, but q, k and v apart.
INTERNLM2_7B = LLAMA_3_8B | {"vocab_size": 92544, "max_position_embeddings": 32768}

HIDDEN, INNER, KEYS = 4096, 14336, 1024
PROJECTOR = 1024 * 4096 + 4096 + 4096 * 4096 + 4096


def language_parameters(rank: int, mixers: bool) -> int:
    """A and B, and M, of q, k, v, o, gate, up and down in 32 layers."""
    widths = [2 * HIDDEN, HIDDEN + KEYS, HIDDEN + KEYS, 2 * HIDDEN, *[HIDDEN + INNER] * 3]
    return 32 * (rank * sum(widths) + (rank * rank * len(widths) if mixers else 0))


def tower_parameters(rank: int, mixers: bool, layers: int) -> int:
    """The same of q, k, v, out, fc1 and fc2 in ViT-L."""
    widths = [2 * 1024] * 4 + [1024 + 4096] * 2
    return layers * (rank * sum(widths) + (rank * rank * len(widths) if mixers else 0))


def write_config(folder, language):
    config = {
        "architectures": ["LlavaForConditionalGeneration"],
        "model_type": "llava",
        "vision_config": VIT_L_336,
        "text_config": language,
        "image_token_index": language["vocab_size"] - 1,
        "vision_feature_layer": -2,
    }
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    """A folder with the config of LLaMA-3-8B and ViT-L and nothing else."""
    return write_config(tmp_path_factory.mktemp("llama"), LLAMA_3_8B)


@pytest.fixture(scope="module")
def internlm(tmp_path_factory):
    return write_config(tmp_path_factory.mktemp("internlm"), INTERNLM2_7B)


def _config(recipe, model, **changes):
    return configure(VisionLanguageTrainConfig, load_recipe(recipe), {"model": model, "data": "any", **changes})


def _trained(recipe, model, method):
    """Trained parameters of the model on the meta device."""
    with torch.device("meta"):
        base = empty_model(load_config(model))
        return trained_parameters(attach_adapter(base, _config(recipe, model, method=method)))


@pytest.mark.parametrize(("method", "parameters"), [("lora", 215_883_776), ("moslora-orthogonal", 217_366_528)])
def test_trained_parameters_of_llama_3_8b_with_vit_l(llama, method, parameters):
    mixers = method != "lora"
    found = _trained("llava/llama3-8b-vit-l", llama, method)
    assert found == language_parameters(64, mixers) + tower_parameters(64, mixers, layers=23) + PROJECTOR == parameters


@pytest.mark.parametrize(("method", "parameters"), [("lora", 1_390_288_896), ("moslora", 1_449_009_152)])
def test_trained_parameters_of_internlm2_7b_with_vit_l(internlm, method, parameters):
    found = _trained("llava/internlm2-7b-vit-l-q4", internlm, method)
    expected = language_parameters(512, method != "lora") + tower_parameters(64, mixers=False, layers=23) + PROJECTOR
    assert found == expected == parameters


@pytest.mark.slow
def test_dry_run_prints_them(llama, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    words = ["train", "vision-language", "--recipe", "llava/llama3-8b-vit-l", "--model", llama, "--data", "any"]
    assert main([*words, "--dry-run", "--max-tokens", "640"]) == 0
    assert "217,366,528" in capsys.readouterr().out


def test_dry_run_of_a_small_model(tiny_llava, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "120")
    words = ["train", "vision-language", "--model", str(tiny_llava), "--data", "any", "--max-tokens", "64"]
    assert main([*words, "--rank", "4", "--vision-rank", "2", "--method", "lora", "--dry-run"]) == 0
    found = estimate(
        VisionLanguageTrainConfig(
            model=str(tiny_llava), data=("any",), rank=4, vision_rank=2, method="lora", max_tokens=64
        )
    )
    assert f"{found.trainable:,}" in capsys.readouterr().out


def test_four_bits_take_a_quarter_of_the_language_models_layers(internlm):
    with torch.device("meta"):
        base = empty_model(load_config(internlm), dtype=torch.bfloat16)
    config = _config("llava/internlm2-7b-vit-l-q4", internlm)
    size = {
        kind: weight_bytes(base, torch.bfloat16, dataclasses.replace(config, quantize=kind))
        for kind in ("none", "nf4", "int8")
    }
    layers = 32 * (2 * HIDDEN * HIDDEN + 2 * HIDDEN * KEYS + 3 * HIDDEN * INNER)
    rows = 32 * (2 * HIDDEN + 2 * KEYS + HIDDEN + 2 * INNER)
    blocks = layers // 64
    assert size["none"] - size["nf4"] == 2 * layers - (layers // 2 + blocks + 4 * (blocks // 256))
    assert size["none"] - size["int8"] == 2 * layers - (layers + 4 * rows)
    assert size["none"] == 2 * sum(each.numel() for each in base.parameters())


def test_activations_seen_on_the_meta_device_are_those_of_a_real_forward_pass(tiny_llava):
    config = VisionLanguageTrainConfig(
        model=str(tiny_llava), data=("any",), dtype="float32", dropout=0.0, batch_size=2, micro_batch_size=2,
        max_tokens=40, kernel="fused",
    )  # fmt: skip
    adapted = load_adapted(config).train()
    tokens = torch.zeros((2, 40), dtype=torch.long)
    tokens[:, :16] = adapted.config.image_token_id
    pictures = torch.zeros(2, 3, IMAGE_SIZE, IMAGE_SIZE)
    real = saved_bytes(adapted(input_ids=tokens, labels=tokens, pixel_values=pictures, use_cache=False).loss, adapted)
    found = estimate(config)
    assert found.activation_bytes == pytest.approx(real, rel=0.1)
    assert found.trainable == trained_parameters(adapted)
    assert found.total == sum(
        each.numel() for each in transformers.AutoModelForImageTextToText.from_pretrained(tiny_llava).parameters()
    )
    less = estimate(dataclasses.replace(config, gradient_checkpointing=True))
    assert less.activation_bytes < found.activation_bytes
