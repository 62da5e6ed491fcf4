"""Every merged weight is W + delta W rounded once, whichever way it was merged, and that is checked in the files."""

import json
import math

import pytest
import torch
import transformers
from peft import PeftModel

from moslora.checkpoint import merge_adapter, merge_streamed, merge_whole
from moslora.checkpoint.rounding import roundings
from moslora.checkpoint.shards import INDEX, Weights
from moslora.errors import CheckpointError, ConfigError, UnsupportedError
from tests.adapter.architectures import TRANSFORMERS
from tests.checkpoint.adapters import adapt, expected_updates
from tests.checkpoint.llava import adapt_llava, llava_folder, load, logits
from tests.helpers import relative_difference, tiny_llama
from tests.tasks.vision_language.parts import projector_tensors

SETTINGS = {
    "moslora": {"r": 4, "mixer_pattern": {"up_proj": "butterfly"}, "rank_pattern": {"q_proj": 6}},
    "lora": {"r": 4, "mixer": "identity", "use_rslora": True, "alpha_pattern": {"q_proj": 3}},
}


def base_and_adapter(root, dtype=torch.bfloat16, save=None, dtype_of_adapter=None, **config):
    base = tiny_llama().to(dtype)
    base.save_pretrained(root / "base", **(save or {}))
    names = ["q_proj", "v_proj", "up_proj"]
    return adapt(
        base, root / "a", std=0.1, dtype=dtype_of_adapter, **{"target_modules": names, "lora_alpha": 8, **config}
    )


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_each_merged_weight_is_the_sum_in_float64_rounded_once(name, dtype, tmp_path):
    model = base_and_adapter(tmp_path, dtype, **SETTINGS[name])
    report = merge_adapter(tmp_path / "a", tmp_path / "merged", base=tmp_path / "base")
    before, after, updates = Weights(tmp_path / "base"), Weights(tmp_path / "merged"), expected_updates(model)
    assert (report.way, report.updated) == ("streamed", 6)
    assert 0.5 < report.roundings <= 1.001
    for key in before.places:
        update = updates.get(key.removesuffix(".weight"), torch.zeros(()))
        exact = before.load(key).double() + update
        # Two float64 sums in another order may fall on both sides of a tie.
        assert roundings(after.load(key), exact) <= 1.001
        assert (after.load(key) != exact.to(dtype)).sum() <= (1 if update.ndim else 0)


def test_pefts_own_merge_in_bfloat16_is_further_away(tmp_path):
    """Where the adapter itself is in bfloat16, PEFT rounds delta W, and then the sum."""
    model = base_and_adapter(tmp_path, dtype_of_adapter=torch.bfloat16)
    before, updates = Weights(tmp_path / "base"), expected_updates(model)
    base = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "base", dtype="auto")
    loaded = PeftModel.from_pretrained(base, tmp_path / "a", autocast_adapter_dtype=False)
    merged = loaded.merge_and_unload().state_dict()
    worst = max(
        roundings(merged[f"{name}.weight"], before.load(f"{name}.weight").double() + update)
        for name, update in updates.items()
    )
    report = merge_adapter(tmp_path / "a", tmp_path / "merged", base=tmp_path / "base")
    print(f"furthest from W + delta W, in roundings: PEFT {worst:.1f}, moslora {report.roundings:.3f}")
    assert worst > 1.5
    assert report.roundings <= 1.001


def test_a_base_in_shards_keeps_its_files_and_names(tmp_path):
    base_and_adapter(tmp_path, save={"max_shard_size": "20KB"})
    merge_adapter(tmp_path / "a", tmp_path / "merged", base=tmp_path / "base")
    names = {path.name for path in (tmp_path / "base").iterdir()}
    assert INDEX in names
    assert {path.name for path in (tmp_path / "merged").iterdir()} == names
    assert (tmp_path / "merged" / INDEX).read_text() == (tmp_path / "base" / INDEX).read_text()
    for path in (tmp_path / "base").glob("*.safetensors"):
        assert path.stat().st_size == (tmp_path / "merged" / path.name).stat().st_size


@pytest.mark.parametrize(
    ("name", "config"), [("llama", {"use_dora": True}), ("mixtral", {}), ("llama", {"init_lora_weights": "pissa"})]
)
def test_what_is_more_than_linear_updates_is_merged_whole_and_rounded_once_too(name, config, tmp_path):
    architecture = TRANSFORMERS[name]
    torch.manual_seed(0)
    base = architecture.build().to(torch.bfloat16)
    base.save_pretrained(tmp_path / "base")
    settings = {**architecture.config, "init_mixer": "orthogonal", **config}
    adapt(base, tmp_path / "a", std=0.1, r=4, **settings)
    report = merge_adapter(tmp_path / "a", tmp_path / "merged", base=tmp_path / "base")
    assert report.way == "whole"
    assert report.roundings <= 1.001
    wide = PeftModel.from_pretrained(type(base).from_pretrained(tmp_path / "base", dtype="auto"), tmp_path / "a")
    expected = wide.double().merge_and_unload().state_dict()
    found = type(base).from_pretrained(tmp_path / "merged", dtype="auto").state_dict()
    for key, weight in found.items():
        assert weight.dtype == torch.bfloat16
        assert roundings(weight, expected[key]) <= 1.01, key


def test_a_weight_that_is_written_wrongly_is_found_and_nothing_is_kept(tmp_path, monkeypatch):
    base_and_adapter(tmp_path)
    write = merge_streamed.overwrite
    monkeypatch.setattr(merge_streamed, "overwrite", lambda place, tensor: write(place, tensor * 1.02))
    with pytest.raises(CheckpointError, match=r"roundings away from W \+ delta W"):
        merge_adapter(tmp_path / "a", tmp_path / "merged", base=tmp_path / "base")
    assert {path.name for path in tmp_path.iterdir()} == {"base", "a"}


def test_a_wrong_file_of_a_whole_merge_is_found_too(tmp_path, monkeypatch):
    base_and_adapter(tmp_path, use_dora=True)
    save = transformers.LlamaForCausalLM.save_pretrained

    def badly(model, folder):
        model.model.norm.weight.data = model.model.norm.weight.data * 1.02
        save(model, folder)
        model.model.norm.weight.data = torch.ones_like(model.model.norm.weight)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "save_pretrained", badly)
    with pytest.raises(CheckpointError, match=r"model\.norm\.weight: the written weight"):
        merge_adapter(tmp_path / "a", tmp_path / "merged", base=tmp_path / "base")


@pytest.mark.parametrize("use_dora", [False, True])
def test_a_sum_beyond_float16_is_refused(use_dora, tmp_path):
    model = base_and_adapter(tmp_path, torch.float16, use_dora=use_dora)
    for parameter in model.parameters():
        parameter.data = parameter.data * (1e7 if parameter.requires_grad else 1)
    model.save_pretrained(tmp_path / "a")
    with pytest.raises(UnsupportedError, match=r"above the largest number of torch\.float16"):
        merge_adapter(tmp_path / "a", tmp_path / "merged", base=tmp_path / "base")
    assert not (tmp_path / "merged").exists()


def test_roundings_are_half_last_places():
    exact = torch.tensor([1.0, 1.0, 3.0, 0.0, -1000.0], dtype=torch.float64)
    one_place = torch.tensor([2**-7, 0, 2**-6, 0, 4], dtype=torch.float64)
    for places in (0.0, 1.0):
        found = (exact + places * one_place).bfloat16()
        assert roundings(found, exact) == 2 * places
    assert roundings(torch.tensor([math.nan]), torch.ones(1, dtype=torch.float64)) == math.inf
    assert roundings(torch.tensor([1e-20]), torch.zeros(1, dtype=torch.float64)) > 1e6
    values = torch.randn(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        assert 0.9 < roundings(values.to(dtype), values) <= 1.001


@pytest.fixture(scope="module")
def llava(tmp_path_factory):
    root = tmp_path_factory.mktemp("llava")
    folder = llava_folder(root)
    return root, folder, adapt_llava(load(folder), root / "run" / "adapter")


def test_a_llava_folder_keeps_names_processor_and_gets_the_trained_projector(llava, tmp_path):
    root, folder, model = llava
    report = merge_adapter(root / "run" / "adapter", tmp_path / "merged", base=folder)
    before, after = Weights(folder), Weights(tmp_path / "merged")
    assert (report.way, report.replaced) == ("streamed", 4)
    assert before.places.keys() == after.places.keys()
    kept = {"tokenizer.json", "processor_config.json", "preprocessor_config.json", "chat_template.jinja"}
    assert kept <= {path.name for path in (tmp_path / "merged").iterdir()}
    expected = logits(model, folder)
    assert relative_difference(logits(load(tmp_path / "merged"), folder), expected) < 1e-5
    assert relative_difference(logits(load(folder), folder), expected) > 0.1


def test_a_projector_file_takes_the_place_of_all_others(llava, tmp_path):
    from safetensors.torch import save_file

    root, folder, _ = llava
    tensors = {f"multi_modal_projector.{name}": value for name, value in projector_tensors(text=64).items()}
    save_file(tensors, tmp_path / "projector.safetensors")
    merge_adapter(
        root / "run" / "adapter", tmp_path / "merged", base=folder, projector=tmp_path / "projector.safetensors"
    )
    found = Weights(tmp_path / "merged")
    assert all(torch.equal(found.load(key), tensor) for key, tensor in tensors.items())
    with pytest.raises(ConfigError, match=r"LlamaForCausalLM in .* has none"):
        merge_adapter(
            root / "run" / "adapter",
            tmp_path / "again",
            base=root / "llama",
            projector=tmp_path / "projector.safetensors",
        )


def test_weights_that_are_quantised_on_the_disk_are_refused(llava, tmp_path):
    root, folder, _ = llava
    config = json.loads((folder / "config.json").read_text())
    (tmp_path / "base").mkdir()
    quantized = {**config, "quantization_config": {"quant_method": "bitsandbytes", "load_in_4bit": True}}
    (tmp_path / "base" / "config.json").write_text(json.dumps(quantized))
    with pytest.raises(UnsupportedError, match="quantised on the disk"):
        merge_adapter(root / "run" / "adapter", tmp_path / "merged", base=tmp_path / "base")


def test_both_ways_give_the_same_files(llava, tmp_path, monkeypatch):
    root, folder, _ = llava
    merge_adapter(root / "run" / "adapter", tmp_path / "streamed", base=folder)
    monkeypatch.setattr(merge_streamed.StreamedMerge, "of", lambda *arguments: None)
    report = merge_adapter(root / "run" / "adapter", tmp_path / "whole", base=folder)
    one, two = Weights(tmp_path / "streamed"), Weights(tmp_path / "whole")
    assert report.way == "whole"
    assert one.places.keys() == two.places.keys()
    for key in one.places:
        assert relative_difference(one.load(key), two.load(key)) < 2**-22, key
    assert merge_whole.WIDER[torch.float32] == torch.float64
