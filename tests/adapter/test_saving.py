"""What a saved adapter holds, how it comes back, and how a wrong file is refused."""

import copy
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import AutoPeftModelForCausalLM, PeftConfig, PeftModel, get_peft_model, inject_adapter_in_model
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from moslora import MosLoraConfig, to_lora
from moslora.errors import CheckpointError
from tests.adapter.architectures import words
from tests.helpers import randomize_adapters, run_stock_peft, tiny_llama

SETTINGS: dict[str, Any] = {"r": 4, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
WEIGHTS = "adapter_model.safetensors"
Q_PROJ = "base_model.model.model.layers.0.self_attn.q_proj"

STOCK_LOADING = """
import json
from peft import PeftModel
from transformers import LlamaForCausalLM
base_folder, *adapters = args
errors = []
for adapter in adapters:
    try:
        PeftModel.from_pretrained(LlamaForCausalLM.from_pretrained(base_folder), adapter)
    except Exception as error:
        errors.append([type(error).__name__, str(error)])
print(json.dumps(errors))
"""


def adapted(mixer: str = "learnable", **settings: Any) -> PeftModel:
    model = get_peft_model(tiny_llama(), MosLoraConfig(mixer=mixer, **(SETTINGS | settings))).eval()
    randomize_adapters(model)
    return model


def logits(model: nn.Module) -> Tensor:
    with torch.no_grad():
        return model(words()).logits


@pytest.mark.parametrize(
    ("mixer", "leaves"),
    [
        ("learnable", {"lora_A.raw", "lora_A.mixer", "lora_B.weight"}),
        ("butterfly", {"lora_A.raw", "lora_B.weight"}),
        ("identity", {"lora_A.weight", "lora_B.weight"}),
    ],
)
def test_the_file_holds_the_raw_factors(mixer, leaves, tmp_path):
    model = adapted(mixer)
    model.save_pretrained(tmp_path)
    saved = load_file(tmp_path / WEIGHTS)
    assert {".".join(key.rsplit(".", 2)[1:]) for key in saved} == leaves
    live = {n.replace(".default", ""): p for n, p in model.named_parameters() if ".lora_" in n}
    assert saved.keys() == live.keys()
    assert all(torch.equal(saved[key], live[key]) for key in saved)


@pytest.mark.parametrize("mixer", ["learnable", "butterfly"])
def test_the_file_of_an_embedding_holds_the_raw_factors(mixer, tmp_path):
    model = adapted(mixer, target_modules=["embed_tokens"])
    model.save_pretrained(tmp_path, save_embedding_layers=False)
    prefix = "base_model.model.model.embed_tokens.lora_embedding_"
    mixers = {f"{prefix}mixer"} if mixer == "learnable" else set()
    saved = load_file(tmp_path / WEIGHTS)
    assert saved.keys() == {f"{prefix}A", f"{prefix}B"} | mixers
    layer = model.get_submodule("base_model.model.model.embed_tokens")
    assert torch.equal(saved[f"{prefix}B"], layer.lora_embedding_B.raw("default"))


def test_the_config_names_the_method_and_keeps_the_mixer_settings(tmp_path):
    settings = {"init_mixer": "orthogonal", "mixer_pattern": {"v_proj": "butterfly"}}
    adapted(**settings).save_pretrained(tmp_path)
    written = json.loads((tmp_path / "adapter_config.json").read_text())
    assert written["peft_type"] == "MOSLORA"
    assert {key: written[key] for key in settings} == settings
    read = PeftConfig.from_pretrained(tmp_path)
    assert isinstance(read, MosLoraConfig)
    assert (read.mixer, read.init_mixer, read.mixer_pattern) == ("learnable", "orthogonal", {"v_proj": "butterfly"})


SAVED = {
    "learnable": {},
    "butterfly": {"mixer": "butterfly"},
    "identity": {"mixer": "identity"},
    "patterns": {
        "mixer_pattern": {"v_proj": "identity"},
        "rank_pattern": {"q_proj": 6},
        "alpha_pattern": {"v_proj": 3},
    },
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "bias": {"lora_bias": True},
    "embedding": {"target_modules": ["q_proj", "embed_tokens"]},
    "lm_head": {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
}


@pytest.mark.parametrize("name", SAVED)
def test_a_reloaded_adapter_is_the_same_bit_for_bit(name, tmp_path):
    model = adapted(**SAVED[name])
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_llama(), tmp_path).eval()
    assert torch.equal(logits(loaded), logits(model))
    assert not torch.equal(logits(loaded), logits(tiny_llama()))
    twice = tmp_path / "twice"
    loaded.save_pretrained(twice)
    assert (twice / WEIGHTS).read_bytes() == (tmp_path / WEIGHTS).read_bytes()


def test_the_auto_class_brings_base_and_adapter_back(tmp_path):
    base = tiny_llama()
    base.save_pretrained(tmp_path / "base")
    base.name_or_path = str(tmp_path / "base")
    model = get_peft_model(base, MosLoraConfig(**SETTINGS)).eval()
    randomize_adapters(model)
    model.save_pretrained(tmp_path / "adapter")
    loaded = AutoPeftModelForCausalLM.from_pretrained(tmp_path / "adapter").eval()
    assert type(loaded.active_peft_config) is MosLoraConfig
    assert torch.equal(logits(loaded), logits(model))


def test_importing_moslora_before_or_after_peft_is_enough_to_load(tmp_path):
    adapted().save_pretrained(tmp_path)
    for imports in ("import moslora, peft", "import peft, moslora"):
        code = f"{imports}, sys; print(type(peft.PeftConfig.from_pretrained(sys.argv[1])).__name__)"
        done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, tmp_path], capture_output=True, text=True)
        assert done.stdout.strip() == "MosLoraConfig", done.stderr


def test_stock_peft_stops_at_a_moslora_adapter(tmp_path):
    tiny_llama().save_pretrained(tmp_path / "base")
    for mixer in ("learnable", "butterfly", "identity"):
        adapted(mixer).save_pretrained(tmp_path / mixer)
    folders = [tmp_path / name for name in ("base", "learnable", "butterfly", "identity")]
    errors = json.loads(run_stock_peft(STOCK_LOADING, *folders))
    assert len(errors) == 3
    for kind, message in errors:
        assert kind in ("ValueError", "KeyError")
        assert "MOSLORA" in message


def edit_weights(folder: Path, change: dict[str, Tensor | None]) -> None:
    weights = load_file(folder / WEIGHTS)
    weights.update({key: value for key, value in change.items() if value is not None})
    save_file({k: v for k, v in weights.items() if change.get(k, v) is not None}, folder / WEIGHTS)


@pytest.mark.parametrize("leaf", ["lora_A.mixer", "lora_A.raw", "lora_B.weight"])
def test_a_missing_factor_is_an_error_that_names_it(leaf, tmp_path):
    adapted().save_pretrained(tmp_path)
    edit_weights(tmp_path, {f"{Q_PROJ}.{leaf}": None})
    with pytest.raises(CheckpointError, match=rf"layers\.0\.self_attn\.q_proj\.{leaf}"):
        PeftModel.from_pretrained(tiny_llama(), tmp_path)


@pytest.mark.parametrize("leaf", ["lora_A.mixer", "lora_A.raw"])
def test_a_factor_of_the_wrong_shape_is_an_error_that_names_it(leaf, tmp_path):
    adapted().save_pretrained(tmp_path)
    edit_weights(tmp_path, {f"{Q_PROJ}.{leaf}": torch.zeros(3, 3)})
    with pytest.raises(RuntimeError, match=rf"size mismatch for .*q_proj\.{leaf.replace('lora_A', 'lora_A.default')}"):
        PeftModel.from_pretrained(tiny_llama(), tmp_path)


def test_an_unknown_key_is_an_error_that_names_it(tmp_path):
    adapted().save_pretrained(tmp_path)
    edit_weights(tmp_path, {f"{Q_PROJ}.lora_AB.weight": torch.zeros(4, 4)})
    with pytest.raises(CheckpointError, match=r"q_proj\.lora_AB"):
        PeftModel.from_pretrained(tiny_llama(), tmp_path)


def test_the_weights_of_a_plain_lora_do_not_load_as_a_moslora(tmp_path):
    to_lora(adapted()).save_pretrained(tmp_path / "plain")
    adapted().save_pretrained(tmp_path / "mixed")
    (tmp_path / "plain" / WEIGHTS).replace(tmp_path / "mixed" / WEIGHTS)
    with pytest.raises(CheckpointError, match=r"misses .*q_proj\.lora_A\.mixer.* has no place for .*lora_A\.weight"):
        PeftModel.from_pretrained(tiny_llama(), tmp_path / "mixed")


def test_a_state_dict_without_a_mixer_does_not_load_into_an_injected_adapter():
    weights = get_peft_model_state_dict(adapted())
    model = inject_adapter_in_model(MosLoraConfig(**SETTINGS), tiny_llama())
    with pytest.raises(CheckpointError, match=r"q_proj\.lora_A\.mixer"):
        set_peft_model_state_dict(model, {key: value for key, value in weights.items() if not key.endswith("mixer")})
    set_peft_model_state_dict(model, weights)
    assert torch.equal(logits(model), logits(adapted()))


def step(model: nn.Module, optimizer: torch.optim.Optimizer, number: int) -> None:
    ids = torch.randint(1, 60, (2, 7), generator=torch.Generator().manual_seed(number))
    model(input_ids=ids, labels=ids).loss.backward()
    optimizer.step()
    optimizer.zero_grad()


def optimizer_of(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)


def test_training_resumes_from_the_file_bit_for_bit(tmp_path):
    base = tiny_llama()
    model = get_peft_model(copy.deepcopy(base), MosLoraConfig(**SETTINGS))
    optimizer = optimizer_of(model)
    for number in range(3):
        step(model, optimizer, number)
    model.save_pretrained(tmp_path)
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    resumed = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path, is_trainable=True)
    resumed_optimizer = optimizer_of(resumed)
    resumed_optimizer.load_state_dict(torch.load(tmp_path / "optimizer.pt"))
    for number in range(3, 6):
        step(model, optimizer, number)
        step(resumed, resumed_optimizer, number)
    ours, theirs = dict(model.named_parameters()), dict(resumed.named_parameters())
    assert sum(n.endswith("mixer") for n in ours) == 4
    assert all(torch.equal(ours[n], theirs[n]) for n in ours)
