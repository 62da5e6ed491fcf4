"""`moslora assemble`: a LLaVA folder computes what its parts compute, and stock transformers loads it."""

import json
import shutil

import pytest
import safetensors.torch
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoProcessor,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    CLIPVisionModel,
    LlamaForCausalLM,
    LlavaForConditionalGeneration,
)

from moslora.checkpoint.shards import Weights
from moslora.cli import main
from moslora.errors import CheckpointError, ConfigError, UnsupportedError
from moslora.tasks.vision_language.assemble import assemble
from tests.helpers import run_stock_peft
from tests.tasks.vision_language.parts import (
    TEXT_SIZE,
    VISION_SIZE,
    language_model_folder,
    projector_tensors,
    vision_model_folder,
)

TEXT = "USER: <image>\nwhat is it? ASSISTANT: a dog"

# With neither torchvision nor this package.
STOCK = """
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration
processor = AutoProcessor.from_pretrained(args[0])
image = Image.new("RGB", (40, 30), (200, 30, 90))
inputs = processor(text=args[2], images=image, return_tensors="pt")
model = LlavaForConditionalGeneration.from_pretrained(args[0], dtype=torch.float64).eval()
with torch.no_grad():
    logits = model(**{**inputs, "pixel_values": inputs["pixel_values"].double()}).logits
torch.save({**inputs, "logits": logits, "template": processor.chat_template}, args[1])
assert "torchvision" not in sys.modules
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("parts")
    return language_model_folder(root / "llama"), vision_model_folder(root / "clip")


def xtuner_projector(folder, tensors, **config):
    folder.mkdir()
    names = {name.replace("linear_1", "model.0").replace("linear_2", "model.2"): t for name, t in tensors.items()}
    safetensors.torch.save_file(names, folder / "model.safetensors")
    settings = {"model_type": "projector", "visual_hidden_size": VISION_SIZE, "llm_hidden_size": TEXT_SIZE, "depth": 2}
    (folder / "config.json").write_text(json.dumps({**settings, "hidden_act": "gelu", "bias": True, **config}))
    return folder


def llava_projector(file, tensors):
    names = {"linear_1": "model.mm_projector.0", "linear_2": "model.mm_projector.2"}
    torch.save({f"{names[name[:8]]}{name[8:]}": tensor for name, tensor in tensors.items()}, file)
    return file


def run_here(folder):
    """What `STOCK` saves, from this process."""
    processor = AutoProcessor.from_pretrained(folder)
    image = Image.new("RGB", (40, 30), (200, 30, 90))
    inputs = processor(text=TEXT, images=image, return_tensors="pt")
    model = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float64).eval()
    with torch.no_grad():
        logits = model(**{**inputs, "pixel_values": inputs["pixel_values"].double()}).logits
    return {**inputs, "logits": logits}


def formula(language_model, vision_model, projector, inputs, layer=-2, cut=1):
    """Logits in float64: hidden states of the tower, the projector, embeddings, the language model."""
    tower = CLIPVisionModel.from_pretrained(vision_model, dtype=torch.float64).eval()
    words = LlamaForCausalLM.from_pretrained(language_model, dtype=torch.float64).eval()
    ids, is_image = inputs["input_ids"], inputs["input_ids"] == inputs["input_ids"].max()
    p = {name: tensor.double() for name, tensor in projector.items()}
    with torch.no_grad():
        seen = tower(inputs["pixel_values"].double(), output_hidden_states=True).hidden_states[layer][:, cut:]
        hidden = torch.nn.functional.gelu(seen @ p["linear_1.weight"].T + p["linear_1.bias"])
        patches = hidden @ p["linear_2.weight"].T + p["linear_2.bias"]
        embedded = words.get_input_embeddings()(ids.masked_fill(is_image, 0))
        embedded[is_image] = patches.reshape(-1, TEXT_SIZE)
        return words(inputs_embeds=embedded).logits


def test_stock_transformers_computes_with_the_folder_what_the_parts_compute(folders, tmp_path):
    tensors = projector_tensors()
    made = assemble(*folders, tmp_path / "llava", projector=xtuner_projector(tmp_path / "projector", tensors))
    run_stock_peft(STOCK, tmp_path / "llava", tmp_path / "found.pt", TEXT)
    found = torch.load(tmp_path / "found.pt")
    assert (found["input_ids"] == made.image_token_id).sum() == 4
    expected = formula(*folders, tensors, found)
    old = expected.shape[-1]
    assert found["logits"].shape[-1] == old + made.added_rows
    assert (found["logits"][..., :old] - expected).abs().max() < 1e-12 * expected.abs().max()
    assert found["template"] == AutoTokenizer.from_pretrained(folders[0]).chat_template


def test_the_names_of_the_weights_are_those_of_llava_on_the_hub(folders, tmp_path):
    assemble(*folders, tmp_path / "llava")
    names = Weights(tmp_path / "llava").places.keys()
    assert {name.partition(".")[0] for name in names} == {"language_model", "vision_tower", "multi_modal_projector"}
    assert "language_model.model.layers.1.self_attn.q_proj.weight" in names
    assert "language_model.lm_head.weight" in names
    assert "vision_tower.vision_model.encoder.layers.2.mlp.fc1.weight" in names


def test_the_settings_of_the_language_model_stay_as_they_were_written(folders, tmp_path):
    """transformers 4 reads rope_theta, transformers 5 writes rope_parameters: a hub model's config has the former."""
    old = tmp_path / "llama"
    shutil.copytree(folders[0], old)
    settings = json.loads((old / "config.json").read_text())
    del settings["rope_parameters"]
    (old / "config.json").write_text(json.dumps({**settings, "rope_theta": 500000.0}))
    made = assemble(old, folders[1], tmp_path / "llava")
    written = json.loads((tmp_path / "llava" / "config.json").read_text())["text_config"]
    expected = {**settings, "rope_theta": 500000.0, "vocab_size": settings["vocab_size"] + made.added_rows}
    assert written == expected
    assert AutoConfig.from_pretrained(made.out).text_config.rope_parameters["rope_theta"] == 500000.0


def test_new_rows_lie_near_the_mean_of_the_old_ones_which_stay(folders, tmp_path):
    made = assemble(*folders, tmp_path / "llava")
    before, after = (
        weights.load(name)
        for weights, name in (
            (Weights(folders[0]), "model.embed_tokens.weight"),
            (Weights(tmp_path / "llava"), "language_model.model.embed_tokens.weight"),
        )
    )
    assert made.image_token_id == len(before)
    assert len(after) % 64 == 0
    assert torch.equal(after[: len(before)], before)
    new = after[len(before) :]
    ratio = (new - before.mean(0)).square().mean() / before.var(0).mean()
    assert 0.8e-5 < ratio < 1.2e-5
    again = assemble(*folders, tmp_path / "again", seed=0)
    assert torch.equal(Weights(again.out).load("language_model.model.embed_tokens.weight"), after)


def test_the_projector_file_of_llava_gives_the_same_model_as_that_of_xtuner(folders, tmp_path):
    theirs = llava_projector(tmp_path / "mm_projector.bin", projector_tensors())
    one = assemble(*folders, tmp_path / "one", projector=theirs, allow_pickle=True)
    two = assemble(*folders, tmp_path / "two", projector=xtuner_projector(tmp_path / "xtuner", projector_tensors()))
    found, expected = Weights(one.out), Weights(two.out)
    assert found.places.keys() == expected.places.keys()
    assert all(torch.equal(found.load(key), expected.load(key)) for key in found.places)


@pytest.mark.parametrize(("layer", "strategy"), [(-1, "default"), (-2, "full")])
def test_layer_and_strategy_are_those_that_were_asked_for(layer, strategy, folders, tmp_path):
    projector = xtuner_projector(tmp_path / "projector", projector_tensors())
    settings = {"feature_layer": layer, "strategy": strategy}
    assemble(*folders, tmp_path / "llava", projector=projector, **settings)
    found = run_here(tmp_path / "llava")
    expected = formula(*folders, projector_tensors(), found, layer, int(strategy == "default"))
    assert (found["logits"][..., : expected.shape[-1]] - expected).abs().max() < 1e-12 * expected.abs().max()


def test_a_whole_clip_and_a_language_model_with_tied_embeddings_fit_too(folders, tmp_path):
    tied = language_model_folder(tmp_path / "tied", tie_word_embeddings=True)
    tower = CLIPVisionModel.from_pretrained(folders[1])
    whole = CLIPModel(CLIPConfig(vision_config=tower.config.to_dict(), text_config={"num_hidden_layers": 1}))
    whole.vision_model.load_state_dict(tower.state_dict())
    whole.save_pretrained(tmp_path / "clip")
    (tmp_path / "clip" / "preprocessor_config.json").write_bytes((folders[1] / "preprocessor_config.json").read_bytes())
    projector = xtuner_projector(tmp_path / "projector", projector_tensors())
    assemble(tied, tmp_path / "clip", tmp_path / "llava", projector=projector)
    found = run_here(tmp_path / "llava")
    expected = formula(tied, folders[1], projector_tensors(), found)
    assert (found["logits"][..., : expected.shape[-1]] - expected).abs().max() < 1e-12 * expected.abs().max()


def test_shards_are_read_and_another_llava_gives_its_projector(folders, tmp_path):
    LlamaForCausalLM.from_pretrained(folders[0]).save_pretrained(tmp_path / "sharded", max_shard_size="40KB")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        (tmp_path / "sharded" / name).write_bytes((folders[0] / name).read_bytes())
    first = assemble(
        *folders, tmp_path / "one", projector=xtuner_projector(tmp_path / "projector", projector_tensors())
    )
    second = assemble(tmp_path / "sharded", folders[1], tmp_path / "two", projector=first.out, dtype="bfloat16")
    one, two = Weights(first.out), Weights(second.out)
    assert one.places.keys() == two.places.keys()
    assert all(torch.equal(one.load(key).bfloat16(), two.load(key)) for key in one.places)


def test_shapes_that_do_not_fit_are_named(folders, tmp_path):
    projector = xtuner_projector(tmp_path / "projector", projector_tensors(vision=VISION_SIZE + 8))
    message = r"linear_1.weight is \(32, 32\), expected \(32, 24\)"
    with pytest.raises(CheckpointError, match=message):
        assemble(*folders, tmp_path / "llava", projector=projector)
    deep = xtuner_projector(tmp_path / "deep", projector_tensors(), depth=3)
    with pytest.raises(CheckpointError, match="3 linear layers, expected 2"):
        assemble(*folders, tmp_path / "llava", projector=deep)
    assert not (tmp_path / "llava").exists()


def test_a_pickle_is_read_only_when_asked_for_and_never_with_code_in_it(folders, tmp_path):
    pickle = llava_projector(tmp_path / "mm_projector.bin", projector_tensors())
    with pytest.raises(CheckpointError, match="--allow-pickle"):
        assemble(*folders, tmp_path / "llava", projector=pickle)
    torch.save({"model.mm_projector.0.weight": print}, pickle)
    with pytest.raises(CheckpointError, match="not a plain state dict"):
        assemble(*folders, tmp_path / "llava", projector=pickle, allow_pickle=True)


def test_what_is_no_language_model_or_no_clip_is_refused(folders, tmp_path):
    with pytest.raises(ConfigError, match="clip_vision_model model, expected a causal language model"):
        assemble(folders[1], folders[1], tmp_path / "llava")
    with pytest.raises(ConfigError, match=r"llama model, expected CLIP"):
        assemble(folders[0], folders[0], tmp_path / "llava")
    remote = tmp_path / "internlm2"
    remote.mkdir()
    config = {"model_type": "internlm2", "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config"}}
    (remote / "config.json").write_text(json.dumps(config))
    with pytest.raises(UnsupportedError, match="InternLM3, which is part of transformers"):
        assemble(remote, folders[1], tmp_path / "llava")


def test_the_command_says_what_it_made_and_what_comes_next(folders, tmp_path, capsys):
    arguments = ["--language-model", str(folders[0]), "--vision-model", str(folders[1]), "--out"]
    assert main(["assemble", *arguments, str(tmp_path / "llava")]) == 0
    printed = capsys.readouterr().out
    assert "projector: untrained" in printed
    assert "--train projector" in printed.splitlines()[-1]
    assert main(["assemble", *arguments, str(tmp_path / "llava")]) == 1
    assert "exists already" in capsys.readouterr().err
