"""Exports of a vision-language run: XTuner's layout and PEFT's, loaded by stock PEFT and transformers elsewhere."""

import json

import pytest
import safetensors.torch
import torch

from moslora.checkpoint import export_adapter, load_adapter, merge_adapter
from moslora.checkpoint.formats import xtuner
from moslora.checkpoint.projectors import read_projector
from moslora.errors import CheckpointError, ConfigError, UnsupportedError
from tests.checkpoint.adapters import adapt
from tests.checkpoint.llava import BOTH_PARTS, adapt_llava, inputs, llava_folder, load, logits
from tests.helpers import relative_difference, run_stock_peft, tiny_llama

PLAIN = {"rank_pattern": {}, "alpha_pattern": {}, "mixer_pattern": {}}

# What LLaVA_XTuner of VLMEvalKit does with the folder, up to the language model's own logits.
LIKE_VLMEVALKIT = """
import torch
from peft import PeftModel
from transformers import AutoModel, AutoModelForCausalLM, CLIPVisionModel
root, folder, given, out = args
given = torch.load(given)
llm = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(f"{root}/llama"), f"{folder}/llm_adapter")
tower = CLIPVisionModel.from_pretrained(f"{root}/clip")
tower = PeftModel.from_pretrained(tower, f"{folder}/visual_encoder_adapter")
projector = AutoModel.from_pretrained(f"{folder}/projector", trust_remote_code=True)
with torch.no_grad():
    seen = tower.eval()(given["pixel_values"], output_hidden_states=True).hidden_states[-2]
    patches = projector.eval()(seen[:, 1:])
    ids = given["input_ids"]
    embedded = llm.get_input_embeddings()(ids.clamp_max(llm.config.vocab_size - 1))
    embedded[ids >= llm.config.vocab_size] = patches.reshape(-1, patches.shape[-1])
    torch.save({"tower": seen, "logits": llm.eval()(inputs_embeds=embedded).logits}, out)
class Older(torch.nn.Module):  # transformers 4 has one more level
    base_model_prefix = ""
    def __init__(self):
        super().__init__()
        self.vision_model = CLIPVisionModel.from_pretrained(f"{root}/clip")
    def forward(self, pixel_values):
        return self.vision_model(pixel_values, output_hidden_states=True).hidden_states[-2]
older = PeftModel.from_pretrained(Older(), f"{folder}/visual_encoder_adapter").eval()
with torch.no_grad():
    assert torch.equal(older(given["pixel_values"]), seen)
"""

STOCK_LLAVA = """
import torch
from peft import PeftModel
from transformers import LlavaForConditionalGeneration
folder, adapter, given, out = args
model = PeftModel.from_pretrained(LlavaForConditionalGeneration.from_pretrained(folder), adapter).eval()
with torch.no_grad():
    torch.save(model(**torch.load(given)).logits, out)
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A LLaVA, the folder of a run on it, and the live model."""
    root = tmp_path_factory.mktemp("llava")
    folder = llava_folder(root)
    base = load(folder)
    base.name_or_path = str(folder)
    model = adapt_llava(base, root / "run" / "adapter")
    torch.save(inputs(folder), root / "inputs.pt")
    return root, folder, model


def test_vlmevalkits_way_of_loading_computes_what_the_run_computes(run, tmp_path):
    root, folder, model = run
    report = export_adapter(root / "run" / "adapter", tmp_path / "out", format="xtuner")
    assert report.largest[1] < 1e-6
    assert report.differences.keys() == load_adapter(root / "run" / "adapter").layers.keys()
    run_stock_peft(LIKE_VLMEVALKIT, root, tmp_path / "out", root / "inputs.pt", tmp_path / "found.pt")
    found = torch.load(tmp_path / "found.pt")
    expected, plain = logits(model, folder), logits(load(folder), folder)
    words = found["logits"].shape[-1]
    assert relative_difference(found["logits"], expected[..., :words]) < 1e-5
    assert relative_difference(plain[..., :words], expected[..., :words]) > 0.1
    with torch.no_grad():
        tower = model.get_base_model().model.vision_tower
        seen = tower(inputs(folder)["pixel_values"], output_hidden_states=True).hidden_states[-2]
    assert relative_difference(found["tower"], seen) < 1e-5


def test_configs_name_each_layer_with_its_own_rank_and_alpha(run, tmp_path):
    root, _, _ = run
    export_adapter(root / "run" / "adapter", tmp_path / "out", format="xtuner", dtype="bfloat16")
    words, images = (
        json.loads((tmp_path / "out" / part / "adapter_config.json").read_text())
        for part in ("llm_adapter", "visual_encoder_adapter")
    )
    assert (words["peft_type"], words["r"], words["lora_alpha"]) == ("LORA", 8, 16)
    assert (images["peft_type"], images["r"], images["lora_alpha"]) == ("LORA", 4, 3)
    assert "model.layers.0.self_attn.q_proj" in words["target_modules"]
    assert "encoder.layers.2.mlp.fc1" in images["target_modules"]
    tensors = safetensors.torch.load_file(tmp_path / "out" / "llm_adapter" / "adapter_model.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert all(key.startswith("base_model.model.model.layers.") for key in tensors)


def test_the_projector_is_the_trained_one_of_the_run_or_else_that_of_the_base(run, tmp_path):
    root, folder, model = run
    trained = model.get_base_model().model.multi_modal_projector.modules_to_save["default"]
    export_adapter(root / "run" / "adapter", tmp_path / "one", format="xtuner")
    found = read_projector(tmp_path / "one" / "projector")
    assert torch.equal(found.tensors["linear_2.weight"], trained.linear_2.weight)
    assert found.activation == "gelu"
    (tmp_path / "run").mkdir()
    adapt_llava(load(folder), tmp_path / "run" / "adapter", modules_to_save=None)
    config = tmp_path / "run" / "adapter" / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": "hub/id"}))
    with pytest.raises(ConfigError, match=r"holds no projector.*--base"):
        export_adapter(tmp_path / "run" / "adapter", tmp_path / "two", format="xtuner")
    export_adapter(tmp_path / "run" / "adapter", tmp_path / "two", format="xtuner", base=folder)
    base = read_projector(folder).tensors
    assert all(torch.equal(read_projector(tmp_path / "two" / "projector").tensors[part], base[part]) for part in base)
    own = {f"multi_modal_projector.{part}": tensor + 1 for part, tensor in base.items()}
    safetensors.torch.save_file(own, tmp_path / "run" / "projector.safetensors")
    export_adapter(tmp_path / "run" / "adapter", tmp_path / "three", format="xtuner", base=folder)
    three = read_projector(tmp_path / "three" / "projector").tensors
    assert all(torch.equal(three[part], base[part] + 1) for part in base)


def test_an_adapter_of_one_part_writes_one_adapter(run, tmp_path):
    _, folder, _ = run
    adapt_llava(load(folder), tmp_path / "a", target_modules=r".*language_model.*q_proj", **PLAIN)
    export_adapter(tmp_path / "a", tmp_path / "out", format="xtuner")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"llm_adapter", "projector"}


def test_what_the_layout_cannot_hold_is_refused(run, tmp_path):
    _, folder, _ = run
    adapt_llava(load(folder), tmp_path / "a", target_modules=["linear_1"], modules_to_save=None, **PLAIN)
    with pytest.raises(UnsupportedError, match=r"multi_modal_projector\.linear_1: the format xtuner"):
        export_adapter(tmp_path / "a", tmp_path / "out", format="xtuner", base=folder)
    adapt_llava(load(folder), tmp_path / "dora", use_dora=True)
    with pytest.raises(UnsupportedError, match="magnitude"):
        export_adapter(tmp_path / "dora", tmp_path / "out", format="xtuner")
    adapt(tiny_llama(), tmp_path / "llama", target_modules=["q_proj"])
    with pytest.raises(UnsupportedError, match="LLaVA model"):
        export_adapter(tmp_path / "llama", tmp_path / "out", format="xtuner")
    assert not (tmp_path / "out").exists()


def test_a_folder_that_reads_back_differently_is_never_kept(run, tmp_path, monkeypatch):
    root, _, _ = run
    write = xtuner._write_projector

    def badly(folder, projector):
        write(folder, projector)
        tensors = safetensors.torch.load_file(folder / "model.safetensors")
        safetensors.torch.save_file({key: t * 2 for key, t in tensors.items()}, folder / "model.safetensors")

    monkeypatch.setattr(xtuner, "_write_projector", badly)
    with pytest.raises(CheckpointError, match="another projector"):
        export_adapter(root / "run" / "adapter", tmp_path / "out", format="xtuner")
    assert list(tmp_path.iterdir()) == []


def test_the_peft_format_is_one_plain_lora_of_the_whole_model(run, tmp_path):
    root, folder, model = run
    export_adapter(root / "run" / "adapter", tmp_path / "lora")
    run_stock_peft(STOCK_LLAVA, folder, tmp_path / "lora", root / "inputs.pt", tmp_path / "found.pt")
    assert relative_difference(torch.load(tmp_path / "found.pt"), logits(model, folder)) < 1e-5
    merge_adapter(root / "run" / "adapter", tmp_path / "merged", base=folder)
    merge_adapter(tmp_path / "lora", tmp_path / "again", base=folder)
    one, two = (load(tmp_path / name).state_dict() for name in ("merged", "again"))
    assert all(relative_difference(one[key], two[key]) < 1e-6 for key in one)


def test_the_adapter_of_these_tests_uses_every_pattern(run):
    root, _, _ = run
    layers = load_adapter(root / "run" / "adapter").layers
    assert {layer.mixer for layer in layers.values()} == {"learnable", "identity"}
    assert {layer.r for layer in layers.values()} == {8, 4}
    assert BOTH_PARTS["modules_to_save"] == ["multi_modal_projector"]
