"""The authors' checkpoints become MoSLoRA adapters that compute `scale * B @ AB @ A`."""

import copy
import json
import os

import pytest
import safetensors.torch
import torch
from diffusers.utils.state_dict_utils import convert_state_dict_to_diffusers
from peft import PeftModel
from transformers import CLIPTextConfig, CLIPTextModel

from moslora.checkpoint import import_adapter, load_adapter
from moslora.errors import CheckpointError, ConfigError, UnsupportedError
from tests.adapter.architectures import sdxl_unet, unet_inputs
from tests.helpers import relative_difference, tiny_llama

# adapter_config.json as the fork under commonsense_reasoning/ writes it.
OLD_CONFIG = {
    "base_model_name_or_path": "meta-llama/Meta-Llama-3-8B",
    "bias": "none",
    "enable_lora": None,
    "fan_in_fan_out": False,
    "inference_mode": True,
    "lora_alpha": 12,
    "lora_dropout": 0.05,
    "lora_use_mixer": True,
    "merge_weights": False,
    "modules_to_save": None,
    "peft_type": "LORA",
    "r": 6,
    "target_modules": ["q_proj", "v_proj"],
    "task_type": "CAUSAL_LM",
}
# What the forks of PEFT 0.7 and 0.10 (vision-language, subjects) add.
NEW_CONFIG = {
    **{key: value for key, value in OLD_CONFIG.items() if key not in ("enable_lora", "merge_weights")},
    "alpha_pattern": {},
    "auto_mapping": None,
    "init_lora_weights": True,
    "layer_replication": None,
    "layers_pattern": None,
    "layers_to_transform": None,
    "loftq_config": {},
    "lora_use_mixer_pattern": {},
    "megatron_config": None,
    "megatron_core": "megatron.core",
    "rank_pattern": {"v_proj": 4},
    "revision": None,
    "use_dora": False,
    "use_rslora": True,
}


def factors(layers, rank_of, seed=0):
    """name -> (A, AB, B) of random numbers for linear modules."""
    draw = torch.Generator().manual_seed(seed)

    def random(*shape):
        return 0.2 * torch.randn(shape, generator=draw)

    found = {}
    for name, layer in layers.items():
        r = rank_of(name)
        found[name] = random(r, layer.in_features), random(r, r), random(layer.out_features, r)
    return found


def linear_layers(model, ends):
    return {name: module for name, module in model.named_modules() if name.endswith(ends)}


def authors_state_dict(found, mixer_key="lora_AB.weight", prefix="base_model.model."):
    keys = ("lora_A.weight", mixer_key, "lora_B.weight")
    return {
        f"{prefix}{name}.{key}": value for name, each in found.items() for key, value in zip(keys, each, strict=True)
    }


def add_updates(model, found, scale_of):
    """The authors' merged model: W + scale * B @ AB @ A."""
    for name, (A, AB, B) in found.items():
        weight = model.get_submodule(name).weight
        update = scale_of(name) * B.double() @ AB.double() @ A.double()
        weight.data = (weight.double() + update.reshape(weight.shape)).float()
    return model


def write_folder(folder, config, state):
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(config))
    safetensors.torch.save_file(state, folder / "adapter_model.safetensors")
    return folder


CASES = {
    "peft 0.3": (OLD_CONFIG, "lora_AB.weight", lambda name: 6, lambda name: 2.0),
    "peft 0.10": (
        NEW_CONFIG,
        "lora_AB.weight",
        lambda name: 4 if name.endswith("v_proj") else 6,
        lambda name: 12 / (4 if name.endswith("v_proj") else 6) ** 0.5,
    ),
    "lora_mixer": (OLD_CONFIG, "lora_mixer.weight", lambda name: 6, lambda name: 2.0),
    "lora_mixer parameter": (OLD_CONFIG, "lora_mixer", lambda name: 6, lambda name: 2.0),
}


@pytest.mark.parametrize("case", CASES)
def test_a_folder_of_the_authors_peft_computes_the_same_after_import(case, tmp_path):
    config, mixer_key, rank_of, scale_of = CASES[case]
    base, ids = tiny_llama(), torch.arange(12).reshape(2, 6)
    found = factors(linear_layers(base, ("q_proj", "v_proj")), rank_of)
    write_folder(tmp_path / "theirs", config, authors_state_dict(found, mixer_key))
    adapter = import_adapter(tmp_path / "theirs", tmp_path / "ours")
    assert adapter.layers.keys() == found.keys()
    model = PeftModel.from_pretrained(tiny_llama(), tmp_path / "ours").eval()
    assert type(model.peft_config["default"]).__name__ == "MosLoraConfig"
    with torch.no_grad():
        before, ours = base(ids).logits, model(ids).logits
        theirs = add_updates(base, found, scale_of)(ids).logits
    assert relative_difference(ours, theirs) < 2e-6
    assert relative_difference(before, theirs) > 1e-2
    for name, (A, AB, B) in found.items():
        layer = adapter.layers[name]
        assert all(map(torch.equal, (layer.A, layer.M, layer.B), (A, AB, B))), "factors are carried over bit for bit"
    settings = json.loads((tmp_path / "ours" / "adapter_config.json").read_text())
    assert settings["peft_type"] == "MOSLORA"
    assert settings["base_model_name_or_path"] == OLD_CONFIG["base_model_name_or_path"]
    assert not settings.keys() & {"lora_use_mixer", "merge_weights", "enable_lora", "lora_use_mixer_pattern"}


def unet_layers():
    return linear_layers(sdxl_unet(), ("to_q", "to_k", "to_v", "to_out.0"))


@pytest.mark.parametrize("naming", ["peft keys", "keys as diffusers rewrites them", "old names", "header"])
def test_what_diffusers_saved_of_the_authors_unet_computes_the_same_after_import(naming, tmp_path):
    found = factors(unet_layers(), lambda name: 4)
    state = authors_state_dict(found, prefix="")
    if naming == "keys as diffusers rewrites them":
        state = convert_state_dict_to_diffusers(state)
        assert any(key.endswith("to_q.lora.downB.weight") for key in state), "diffusers mangles lora_AB in this way"
    if naming == "old names":
        state = {
            key.replace("lora_A.", "lora.down.").replace("lora_B.", "lora.up."): value for key, value in state.items()
        }
    (tmp_path / "theirs").mkdir()
    file = tmp_path / "theirs" / "pytorch_lora_weights.safetensors"
    scale, metadata = 1.0, None  # without a header, alpha = rank
    if naming == "header":
        settings = {"r": 4, "lora_alpha": 2, "target_modules": ["to_q", "to_k", "to_v", "to_out.0"]}
        header = {f"unet.{key}": value for key, value in settings.items()} | {"text_encoder.r": 7}
        scale, metadata = 0.5, {"lora_adapter_metadata": json.dumps(header)}
    safetensors.torch.save_file({f"unet.{key}": value for key, value in state.items()}, file, metadata)
    import_adapter(tmp_path / "theirs", tmp_path / "ours")
    import_adapter(file, tmp_path / "again")
    model = PeftModel.from_pretrained(sdxl_unet(), tmp_path / "ours").eval()
    with torch.no_grad():
        ours = model(**unet_inputs()).sample
        theirs = add_updates(sdxl_unet(), found, lambda name: scale)(**unet_inputs()).sample
    assert relative_difference(ours, theirs) < 1e-5
    assert relative_difference(sdxl_unet()(**unet_inputs()).sample, theirs) > 1e-2
    first, second = (load_adapter(tmp_path / folder) for folder in ("ours", "again"))
    assert first.config == second.config


def test_what_diffusers_saved_of_a_text_encoder_loads_into_the_one_of_transformers_5(tmp_path):
    sizes = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    torch.manual_seed(0)
    encoder = CLIPTextModel(CLIPTextConfig(vocab_size=64, bos_token_id=1, eos_token_id=2, **sizes)).eval()
    found = factors(linear_layers(encoder, ("q_proj", "out_proj")), lambda name: 4)
    state = convert_state_dict_to_diffusers(authors_state_dict(found, prefix="text_model."))
    assert any(key.endswith("q_proj.lora_linear_layer.downB.weight") for key in state)
    file = tmp_path / "pytorch_lora_weights.safetensors"
    safetensors.torch.save_file({f"text_encoder.{key}": value for key, value in state.items()}, file)
    import_adapter(file, tmp_path / "ours")
    words = torch.arange(1, 9)[None]
    with torch.no_grad():
        before = encoder(words).last_hidden_state
        ours = PeftModel.from_pretrained(copy.deepcopy(encoder), tmp_path / "ours").eval()(words).last_hidden_state
        theirs = add_updates(encoder, found, lambda name: 1.0)(words).last_hidden_state
    assert relative_difference(ours, theirs) < 2e-6
    assert relative_difference(before, theirs) > 1e-2


def test_a_file_of_two_parts_is_taken_one_at_a_time(tmp_path):
    state = {
        f"{part}.{name}": value
        for part in ("unet", "text_encoder")
        for name, value in authors_state_dict(factors(unet_layers(), lambda name: 4), prefix="").items()
    }
    file = tmp_path / "pytorch_lora_weights.safetensors"
    safetensors.torch.save_file({key: value.clone() for key, value in state.items()}, file)
    with pytest.raises(ConfigError, match=r"holds text_encoder, unet: .*--component"):
        import_adapter(file, tmp_path / "out")
    assert import_adapter(file, tmp_path / "out", component="unet").layers.keys() == unet_layers().keys()


def test_convolutions_have_no_mixer_in_their_code_and_stay_plain(tmp_path):
    found = factors({"to_q": torch.nn.Linear(8, 8)}, lambda name: 2)
    state = authors_state_dict(found)
    state["base_model.model.conv.lora_A.weight"] = torch.randn(2, 4, 3, 3)
    state["base_model.model.conv.lora_B.weight"] = torch.randn(6, 2, 1, 1)
    config = {**NEW_CONFIG, "r": 2, "rank_pattern": {}, "target_modules": ["to_q", "conv"]}
    write_folder(tmp_path / "theirs", config, state)
    layers = import_adapter(tmp_path / "theirs", tmp_path / "ours").layers
    assert {name: layer.mixer for name, layer in layers.items()} == {"to_q": "learnable", "conv": "identity"}


def test_a_pickle_is_read_only_when_allowed_and_never_runs_code(tmp_path):
    found = factors(linear_layers(tiny_llama(), "q_proj"), lambda name: 6)
    folder = write_folder(tmp_path / "theirs", OLD_CONFIG, {"a": torch.zeros(1)})
    (folder / "adapter_model.safetensors").unlink()
    torch.save(authors_state_dict(found), folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match=r"adapter_model\.bin: found a pickle.*--allow-pickle"):
        import_adapter(folder, tmp_path / "ours")
    assert import_adapter(folder, tmp_path / "ours", allow_pickle=True).layers.keys() == found.keys()

    torch.save({"key": _Trap(tmp_path / "sprung")}, folder / "adapter_model.bin")
    with pytest.raises(CheckpointError, match="not a plain state dict"):
        import_adapter(folder, tmp_path / "out", allow_pickle=True)
    assert not (tmp_path / "sprung").exists()
    assert not (tmp_path / "out").exists()


class _Trap:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def without(end):
    return lambda state: {key: value for key, value in state.items() if not key.endswith(end)}


def same(state):
    return state


SECOND, MIXERS = "layers.1.self_attn.q_proj.", "lora_AB.weight"


@pytest.mark.parametrize(
    ("config", "damage", "error", "message"),
    [
        ({}, without(SECOND + MIXERS), CheckpointError, r"layers\.1.*lora_AB\.weight: found no such"),
        ({}, without(MIXERS), CheckpointError, "They were lost when the file was saved"),
        ({"lora_use_mixer": False}, without(MIXERS), CheckpointError, "This is a plain LoRA"),
        ({}, without(SECOND + "lora_B.weight"), CheckpointError, r"lora_B\.weight: found no such key"),
        ({"r": 5}, same, CheckpointError, r"theirs/adapter_model.*found shape \(6, 32\)"),
        ({"lora_alpha": None}, same, CheckpointError, "lora_alpha: found None"),
        ({"peft_type": "LOHA"}, same, CheckpointError, "peft_type: found 'LOHA'"),
        ({"enable_lora": [True, False, True]}, same, UnsupportedError, "enable_lora"),
        ({"bottleneck_size": 256}, same, UnsupportedError, "'bottleneck_size': 256"),
        ({"use_dora": True, "use_qalora": True, "megatron_config": {"a": 1}}, same, CheckpointError, "PEFT refuses"),
        ({}, lambda state: {key: value / 0 for key, value in state.items()}, CheckpointError, "NaN or infinite"),
    ],
)
def test_a_damaged_checkpoint_leaves_nothing_behind(config, damage, error, message, tmp_path):
    state = authors_state_dict(factors(linear_layers(tiny_llama(), "q_proj"), lambda name: 6))
    write_folder(tmp_path / "theirs", {**OLD_CONFIG, **config}, damage(state))
    with pytest.raises(error, match=message):
        import_adapter(tmp_path / "theirs", tmp_path / "ours")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]


def test_foreign_folders_and_files_are_refused(tmp_path):
    with pytest.raises(CheckpointError, match=r"found neither adapter_config\.json .* nor pytorch_lora_weights"):
        import_adapter(tmp_path, tmp_path / "out")
    file = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"model.layers.0.weight": torch.zeros(2)}, file)
    with pytest.raises(CheckpointError, match=r"found keys that begin with model, expected unet"):
        import_adapter(file, tmp_path / "out")
