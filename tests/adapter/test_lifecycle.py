"""What happens to a MoSLoRA adapter between its making and its end: several at once, switching, merging, copying."""

import copy
import pickle
from typing import Any

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora.layer import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils.hotswap import hotswap_adapter, prepare_model_for_compiled_hotswap
from torch import Tensor, nn

from moslora import MosLoraConfig, UnsupportedError, to_lora
from moslora.adapter.layers import MixedLayer
from tests.adapter.architectures import words
from tests.helpers import randomize_adapters, relative_difference, tiny_llama

# A linear layer, and an embedding, which keeps its mixer in another place.
TARGETS = ["q_proj", "v_proj", "down_proj", "embed_tokens"]
FIRST: dict[str, Any] = {"r": 4, "lora_alpha": 8, "target_modules": TARGETS}
SECOND: dict[str, Any] = {"r": 6, "target_modules": TARGETS, "mixer": "butterfly"}
THIRD: dict[str, Any] = {"r": 3, "target_modules": ["q_proj", "embed_tokens"], "mixer": "identity"}


def adapted(base: nn.Module, name: str, settings: dict[str, Any], seed: int = 0) -> PeftModel:
    model = get_peft_model(copy.deepcopy(base), MosLoraConfig(**settings), adapter_name=name).eval()
    randomize_adapters(model, seed)
    return model


def logits(model: nn.Module, **inputs: Any) -> Tensor:
    with torch.no_grad():
        return model(words(), **inputs).logits


@pytest.fixture(scope="module")
def singles() -> dict[str, PeftModel]:
    """One model per adapter, each on the same base, all adapters random."""
    base = tiny_llama()
    settings = {"first": FIRST, "second": SECOND, "third": THIRD}
    return {name: adapted(base, name, each, seed) for seed, (name, each) in enumerate(settings.items())}


@pytest.fixture
def together(singles) -> PeftModel:
    """One model with all three adapters."""
    model = copy.deepcopy(singles["first"])
    for name in ("second", "third"):
        model.add_adapter(name, singles[name].peft_config[name])
        weights = get_peft_model_state_dict(singles[name], adapter_name=name)
        assert not set_peft_model_state_dict(model, weights, adapter_name=name).unexpected_keys
    return model


def test_each_of_several_adapters_computes_what_it_computes_alone(singles, together):
    for name, single in singles.items():
        together.set_adapter(name)
        assert torch.equal(logits(together), logits(single))


def test_only_the_active_adapter_is_trained(together):
    for name in ("second", "first"):
        together.set_adapter(name)
        trained = {n for n, p in together.named_parameters() if p.requires_grad}
        assert trained == {n for n, _ in together.named_parameters() if f".{name}" in n}
        assert any("mixer" in n for n in trained) == (name == "first")
    together.set_adapter("first", inference_mode=True)
    assert not any(p.requires_grad for p in together.parameters())


def test_a_deleted_adapter_leaves_nothing_behind(singles, together):
    together.delete_adapter("first")
    assert not [n for n in together.state_dict() if ".first" in n]
    layers = [module for module in together.modules() if isinstance(module, MixedLayer)]
    assert layers
    assert not [
        layer for layer in layers for value in vars(layer).values() if isinstance(value, dict) and "first" in value
    ]
    together.set_adapter("second")
    assert torch.equal(logits(together), logits(singles["second"]))
    together.add_adapter("first", singles["first"].peft_config["first"])
    assert sum(n.endswith("mixer") or ".lora_embedding_mixer." in n for n in together.state_dict()) == 7


def test_a_disabled_adapter_gives_the_base_model(singles):
    model, base = singles["first"], tiny_llama()
    before = logits(model)
    with model.disable_adapter():
        assert torch.equal(logits(model), logits(base))
    assert torch.equal(logits(model), before)


def test_the_rows_of_a_batch_can_each_use_another_adapter(singles, together):
    names = ["third", "__base__", "first", "second", "first"]
    ids = torch.randint(1, 60, (len(names), 7), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        mixed = together(ids, adapter_names=names).logits
        for row, name in enumerate(names):
            alone = tiny_llama() if name == "__base__" else singles[name]
            assert relative_difference(mixed[row], alone(ids[row : row + 1]).logits[0]) < 2e-6


@pytest.mark.parametrize("settings", [FIRST, SECOND], ids=["learnable", "butterfly"])
def test_hotswapping_an_adapter_of_the_same_rank_is_exact(settings, tmp_path):
    settings = settings | {"target_modules": ["q_proj", "v_proj"]}
    model, other = adapted(tiny_llama(), "default", settings), adapted(tiny_llama(), "default", settings, seed=1)
    other.save_pretrained(tmp_path)
    identities = [id(p) for p in model.parameters()]
    assert not torch.equal(logits(model), logits(other))
    hotswap_adapter(model, tmp_path, adapter_name="default")
    assert torch.equal(logits(model), logits(other))
    assert identities == [id(p) for p in model.parameters()], "the parameters are the old ones with new values"


@pytest.mark.parametrize("change", [{"r": 2}, {"r": 6}, {"mixer": "butterfly"}, {"rank_pattern": {"v_proj": 2}}])
def test_hotswapping_an_adapter_of_another_shape_is_refused_before_anything_changes(change, tmp_path):
    settings = FIRST | {"target_modules": ["q_proj", "v_proj"]}
    model = adapted(tiny_llama(), "default", settings)
    adapted(tiny_llama(), "default", settings | change, seed=1).save_pretrained(tmp_path)
    before = logits(model)
    with pytest.raises(ValueError, match=f"incompatible: for {next(iter(change))}"):
        hotswap_adapter(model, tmp_path, adapter_name="default")
    assert torch.equal(logits(model), before)


def test_padding_for_hotswap_to_another_rank_is_refused_and_works_on_the_export(tmp_path):
    settings = FIRST | {"target_modules": ["q_proj", "v_proj"]}
    model = adapted(tiny_llama(), "default", settings)
    with pytest.raises(UnsupportedError, match="to_lora"):
        prepare_model_for_compiled_hotswap(copy.deepcopy(model), target_rank=6)
    other = to_lora(adapted(tiny_llama(), "default", settings | {"r": 6}, seed=1))
    other.save_pretrained(tmp_path)
    plain = to_lora(model)
    prepare_model_for_compiled_hotswap(plain, target_rank=6)
    hotswap_adapter(plain, tmp_path, adapter_name="default")
    assert relative_difference(logits(plain), logits(other)) < 1e-6


def test_preparing_a_hotswap_of_scales_only_works():
    model = adapted(tiny_llama(), "default", FIRST)
    before = logits(model)
    prepare_model_for_compiled_hotswap(model)
    assert relative_difference(logits(model), before) < 1e-6


@pytest.mark.parametrize(
    "combination",
    [
        {"combination_type": "cat"},
        {"combination_type": "svd", "svd_rank": 5},
        {"combination_type": "linear"},
        {"combination_type": "ties", "density": 0.5},
        {"combination_type": "dare_linear", "density": 0.5},
        {"combination_type": "magnitude_prune", "density": 0.5},
    ],
    ids=lambda combination: combination["combination_type"],
)
def test_a_weighted_adapter_is_that_of_the_exported_loras(combination):
    model = adapted(tiny_llama(), "one", FIRST)
    model.add_adapter("two", MosLoraConfig(**FIRST, init_mixer="orthogonal"))
    randomize_adapters(model)
    exported = to_lora(copy.deepcopy(model))
    for each in (model, exported):
        torch.manual_seed(0)  # DARE drops at random
        each.add_weighted_adapter(["one", "two"], [0.7, -0.4], "sum", **combination)
        each.set_adapter("sum")
    assert model.peft_config["sum"].mixer == "identity"
    assert not [n for n, _ in model.named_parameters() if ".sum" in n and ("mixer" in n or "raw" in n)]
    assert relative_difference(logits(model), logits(exported)) < 1e-5


def test_a_concatenation_of_adapters_is_the_sum_of_their_updates(tmp_path):
    base = tiny_llama()
    model = adapted(base, "one", FIRST)
    model.add_adapter("two", MosLoraConfig(**FIRST))
    randomize_adapters(model)
    layer = model.get_submodule("base_model.model.model.layers.0.self_attn.q_proj")
    expected = 0.7 * layer.get_delta_weight("one") + 0.3 * layer.get_delta_weight("two")
    model.add_weighted_adapter(["one", "two"], [0.7, 0.3], "sum", combination_type="cat")
    torch.testing.assert_close(layer.get_delta_weight("sum"), expected)
    assert model.peft_config["one"].mixer == "learnable"

    model.set_adapter("sum")
    model.save_pretrained(tmp_path, selected_adapters=["sum"])
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "sum").eval()
    assert torch.equal(logits(loaded), logits(model))


def test_a_model_of_exported_adapters_takes_another_plain_lora():
    model = to_lora(adapted(tiny_llama(), "default", FIRST))
    before = logits(model)
    model.add_adapter("plain", LoraConfig(**FIRST))
    assert torch.equal(logits(model), before)
    model.set_adapter("plain")
    assert not any("mixer" in n or n.endswith("raw") for n in model.state_dict())
    assert torch.equal(logits(model), logits(tiny_llama()))


@pytest.mark.parametrize("name", ["first", "second", "third"])
def test_merging_keeps_the_output_and_unmerging_brings_the_weights_back(name, singles):
    model = copy.deepcopy(singles[name])
    before = logits(model)
    weights = {n: p.clone() for n, p in model.named_parameters() if "base_layer" in n}
    model.merge_adapter(safe_merge=True)
    assert relative_difference(logits(model), before) < 2e-6
    assert all(not torch.equal(p, weights[n]) for n, p in model.named_parameters() if n in weights)
    model.unmerge_adapter()
    assert relative_difference(logits(model), before) < 2e-6
    for n, p in model.named_parameters():
        if n in weights:
            torch.testing.assert_close(p, weights[n], atol=1e-6, rtol=1e-5)


def test_several_adapters_merge_one_after_the_other(together):
    with torch.no_grad():
        layers = {n: m for n, m in together.named_modules() if isinstance(m, LoraLayer)}
        expected = {
            n: layer.get_base_layer().weight + layer.get_delta_weight("first") + layer.get_delta_weight("second")
            for n, layer in layers.items()
        }
    together.merge_adapter(["first", "second"])
    for n, layer in layers.items():
        torch.testing.assert_close(layer.get_base_layer().weight.data, expected[n])


@pytest.mark.parametrize("part", ["raw", "mixer", "lora_B.default.weight"])
def test_a_safe_merge_stops_at_a_broken_factor(part):
    model = adapted(tiny_llama(), "default", FIRST | {"target_modules": ["q_proj"]})
    next(p for n, p in model.named_parameters() if n.endswith(part)).data[0, 0] = torch.nan
    with pytest.raises(ValueError, match="NaNs detected"):
        model.merge_and_unload(safe_merge=True)


def test_merge_and_unload_leaves_the_base_models_modules(singles):
    model, base = copy.deepcopy(singles["first"]), tiny_llama()
    before = logits(model)
    merged = model.merge_and_unload()
    assert type(merged) is type(base)
    assert merged.state_dict().keys() == base.state_dict().keys()
    assert relative_difference(logits(merged), before) < 2e-6


def test_unload_leaves_the_base_model_untouched(singles):
    base = copy.deepcopy(singles["first"]).unload()
    assert torch.equal(logits(base), logits(tiny_llama()))


COPIES = {
    "deepcopy": copy.deepcopy,
    "pickle": lambda model: pickle.loads(pickle.dumps(model)),
}


@pytest.mark.parametrize("how", COPIES)
def test_a_copy_is_equal_independent_and_still_mixed(how, together):
    twin = COPIES[how](together)
    for name in ("first", "second", "third"):
        together.set_adapter(name)
        twin.set_adapter(name)
        assert torch.equal(logits(twin), logits(together))
    together.set_adapter("first")
    twin.set_adapter("first")
    before = logits(together)
    randomize_adapters(twin, seed=9)
    assert torch.equal(logits(together), before)
    assert not torch.equal(logits(twin), before)
    twin(words()).logits.square().sum().backward()
    assert all(p.grad is not None for n, p in twin.named_parameters() if ".first" in n)
    twin.add_adapter("fourth", MosLoraConfig(**FIRST))
    assert [n for n, _ in twin.named_parameters() if n.endswith("q_proj.lora_A.fourth.mixer")]


def test_low_cpu_mem_usage_loads_the_same_adapter(singles, tmp_path):
    singles["first"].save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(tiny_llama(), tmp_path / "first", low_cpu_mem_usage=True).eval()
    assert not any(p.is_meta for p in loaded.parameters())
    assert torch.equal(logits(loaded), logits(singles["first"]))


def test_an_adapter_made_on_the_meta_device_takes_its_values_from_a_state_dict(singles):
    model = get_peft_model(tiny_llama(), MosLoraConfig(**FIRST), low_cpu_mem_usage=True).eval()
    assert all(p.is_meta for n, p in model.named_parameters() if ".lora_" in n)
    weights = get_peft_model_state_dict(singles["first"], adapter_name="first")
    result = set_peft_model_state_dict(model, weights, low_cpu_mem_usage=True)
    assert not result.unexpected_keys
    assert torch.equal(logits(model), logits(singles["first"]))


def test_modules_to_save_are_trained_saved_and_loaded(tmp_path):
    base = tiny_llama()
    model = get_peft_model(copy.deepcopy(base), MosLoraConfig(modules_to_save=["lm_head"], **FIRST)).eval()
    randomize_adapters(model)
    with torch.no_grad():
        model.lm_head.modules_to_save["default"].weight.add_(0.1)
    model(words()).logits.square().sum().backward()
    assert model.lm_head.modules_to_save["default"].weight.grad.abs().max() > 0
    model.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
    assert torch.equal(logits(loaded), logits(model))
    assert relative_difference(logits(loaded.merge_and_unload()), logits(model)) < 2e-6


def test_trainable_tokens_live_beside_the_mixers(tmp_path):
    base = tiny_llama()
    settings = FIRST | {"target_modules": ["q_proj", "v_proj"], "trainable_token_indices": {"embed_tokens": [3, 11]}}
    model = get_peft_model(copy.deepcopy(base), MosLoraConfig(**settings)).eval()
    randomize_adapters(model)
    with torch.no_grad():
        next(p for n, p in model.named_parameters() if "trainable_tokens_delta" in n).add_(0.3)
    ids = torch.tensor([[3, 5, 11, 7]])
    with torch.no_grad():
        expected = model(ids).logits
        assert not torch.allclose(expected, base(ids).logits)
        model.save_pretrained(tmp_path)
        loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path).eval()
        assert torch.equal(loaded(ids).logits, expected)
        assert relative_difference(loaded.merge_and_unload()(ids).logits, expected) < 2e-6
