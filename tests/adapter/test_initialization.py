"""How A, M and B start: the same A as LoRA, the inits of the paper, and PEFT's inits that touch the base weight."""

import copy

import pytest
import torch
from peft import EvaConfig, LoraConfig, PeftModel, get_peft_model, initialize_lora_eva_weights
from peft.tuners.lora.layer import LoraLayer

from moslora import MosLoraConfig, UnsupportedError
from moslora.errors import ConfigError, MoSLoRAWarning
from tests.helpers import randomize_adapters, relative_difference, tiny_llama

TARGETS = {"target_modules": ["q_proj", "v_proj"]}


def adapters(model: torch.nn.Module) -> list[LoraLayer]:
    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def test_moslora_starts_from_the_same_A_as_lora_with_the_same_seed():
    torch.manual_seed(3)
    lora = get_peft_model(tiny_llama(), LoraConfig(r=4, **TARGETS))
    torch.manual_seed(3)
    tiny = tiny_llama()
    moslora = get_peft_model(tiny, MosLoraConfig(r=4, **TARGETS))
    for plain, mixed in zip(adapters(lora), adapters(moslora), strict=True):
        assert torch.equal(plain.lora_A["default"].weight, mixed.lora_A["default"].raw)


def test_mixers_differ_from_layer_to_layer_and_repeat_with_the_seed():
    def mixers() -> list[torch.Tensor]:
        model = get_peft_model(tiny_llama(seed=5), MosLoraConfig(r=4, **TARGETS))
        return [layer.lora_A["default"].mixer for layer in adapters(model)]

    first, second = mixers(), mixers()
    assert len(first) == 4
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], first[1])


def test_the_identity_mixer_is_a_plain_lora_layer():
    model = get_peft_model(tiny_llama(), MosLoraConfig(r=4, mixer="identity", **TARGETS))
    names = [name for name, _ in model.named_parameters() if "lora_A" in name]
    assert names
    assert all(name.endswith("lora_A.default.weight") for name in names)


def test_mixer_pattern_chooses_layer_by_layer():
    config = MosLoraConfig(
        r=4,
        target_modules=["q_proj", "v_proj", "k_proj"],
        mixer_pattern={r".*layers\.0\..*": "identity", "v_proj": "butterfly"},
    )
    model = get_peft_model(tiny_llama(), config)
    kinds = {
        name.removeprefix("base_model.model.model."): getattr(module.lora_A["default"], "mixer_kind", "identity")
        for name, module in model.named_modules()
        if isinstance(module, LoraLayer)
    }
    assert kinds == {
        "layers.0.self_attn.q_proj": "identity",
        "layers.0.self_attn.k_proj": "identity",
        "layers.0.self_attn.v_proj": "identity",
        "layers.1.self_attn.q_proj": "learnable",
        "layers.1.self_attn.k_proj": "learnable",
        "layers.1.self_attn.v_proj": "butterfly",
    }


def test_zeros_warns_and_never_learns():
    with pytest.warns(MoSLoRAWarning, match="never learns"):
        config = MosLoraConfig(r=4, init_mixer="zeros", **TARGETS)
    model = get_peft_model(tiny_llama(), config)
    model(torch.arange(10).view(2, 5)).logits.square().sum().backward()
    gradients = [p.grad for p in model.parameters() if p.requires_grad]
    assert len(gradients) == 12
    assert all(gradient.abs().max() == 0 for gradient in gradients)


@pytest.mark.parametrize("init", ["kaiming_uniform", "orthogonal", "normal", "identity"])
def test_every_other_init_learns(init):
    model = get_peft_model(tiny_llama(), MosLoraConfig(r=4, init_mixer=init, **TARGETS))
    model(torch.arange(10).view(2, 5)).logits.square().sum().backward()
    assert all(p.grad.abs().max() > 0 for n, p in model.named_parameters() if "lora_B" in n)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"mixer": "learned"}, "learnable, frozen, core, butterfly, identity"),
        ({"init_mixer": "xavier"}, "kaiming_uniform"),
        ({"mixer": "butterfly", "r": 5}, "even rank"),
        ({"mixer_pattern": {"v_proj": "none"}}, "'none'"),
        ({"mixer_pattern": {"(v_proj": "identity"}}, "regular expression"),
    ],
)
def test_a_wrong_config_is_refused(wrong, message):
    with pytest.raises(ConfigError, match=message):
        MosLoraConfig(**({"r": 4} | TARGETS | wrong))


def test_a_butterfly_on_an_odd_rank_of_a_pattern_names_the_layer():
    config = MosLoraConfig(r=4, rank_pattern={"v_proj": 3}, mixer="butterfly", **TARGETS)
    with pytest.raises(ConfigError, match=r"layers\.0\.self_attn\.v_proj has rank 3"):
        get_peft_model(tiny_llama(), config)


@pytest.mark.parametrize("init_mixer", ["kaiming_uniform", "orthogonal"])
@pytest.mark.parametrize("init", ["pissa", "pissa_niter_4", "olora", "orthogonal", "mica"])
def test_an_init_from_the_base_weight_keeps_the_function(init, init_mixer):
    ids = torch.arange(10).view(2, 5)
    base = tiny_llama()
    expected = base(ids).logits
    config = MosLoraConfig(r=4, init_lora_weights=init, init_mixer=init_mixer, **TARGETS)
    model = get_peft_model(copy.deepcopy(base), config).eval()
    assert relative_difference(model(ids).logits, expected) < 2e-6
    assert all(isinstance(layer.lora_A["default"].mixer, torch.nn.Parameter) for layer in adapters(model))


def test_pissa_has_the_same_effective_factors_as_stock_lora():
    lora = get_peft_model(tiny_llama(), LoraConfig(r=4, init_lora_weights="pissa", **TARGETS))
    config = MosLoraConfig(r=4, init_lora_weights="pissa", init_mixer="orthogonal", **TARGETS)
    moslora = get_peft_model(tiny_llama(), config)
    for plain, mixed in zip(adapters(lora), adapters(moslora), strict=True):
        torch.testing.assert_close(mixed.lora_A["default"].effective(), plain.lora_A["default"].weight)
        assert not torch.allclose(mixed.lora_A["default"].raw, plain.lora_A["default"].weight)


def test_an_init_from_the_base_weight_is_refused_with_a_singular_mixer():
    with pytest.raises(UnsupportedError, match="butterfly mixer is singular"):
        get_peft_model(tiny_llama(), MosLoraConfig(r=4, init_lora_weights="pissa", mixer="butterfly", **TARGETS))
    with pytest.raises(UnsupportedError, match="singular"):
        get_peft_model(tiny_llama(), MosLoraConfig(r=4, init_lora_weights="pissa", init_mixer="zeros", **TARGETS))


def test_eva_redistributes_ranks_as_for_lora_and_keeps_the_mixers():
    # Only three different words: the first layer then sees three directions, and EVA gives its ranks to the second.
    ids = torch.randint(0, 3, (8, 12), generator=torch.Generator().manual_seed(0))
    batches = [{"input_ids": rows, "attention_mask": torch.ones_like(rows)} for rows in ids.split(4)]
    settings = {"r": 4, "init_lora_weights": "eva", "eva_config": EvaConfig(rho=2.0), "task_type": "CAUSAL_LM"}
    lora = get_peft_model(tiny_llama(), LoraConfig(**settings, **TARGETS))
    model = get_peft_model(tiny_llama(), MosLoraConfig(**settings, **TARGETS))
    for either in (lora, model):
        initialize_lora_eva_weights(either, batches, show_progress_bar=False)
    torch.testing.assert_close(model(ids).logits, tiny_llama()(ids).logits)
    ranks = [layer.r["default"] for layer in adapters(model)]
    assert len(set(ranks)) > 1
    assert ranks == [layer.r["default"] for layer in adapters(lora)]
    for r, mixed, plain in zip(ranks, adapters(model), adapters(lora), strict=True):
        down = mixed.lora_A["default"]
        assert down.mixer.shape == (r, r)
        # It is the effective A that holds EVA's directions.
        torch.testing.assert_close(down.effective(), plain.lora_A["default"].weight, atol=1e-4, rtol=1e-4)


def test_mica_keeps_B_frozen_and_trains_the_mixer():
    config = MosLoraConfig(
        r=4, init_lora_weights="mica", init_mixer="orthogonal", target_modules=["q_proj", "embed_tokens"]
    )
    model = get_peft_model(tiny_llama(), config)
    model.set_adapter("default")
    frozen = {n for n, p in model.named_parameters() if ".lora_" in n and not p.requires_grad}
    assert frozen == {n for n, _ in model.named_parameters() if ".lora_B." in n or ".lora_embedding_B." in n}
    assert any("mixer" in n for n, p in model.named_parameters() if p.requires_grad)


def test_pissa_is_converted_to_a_plain_lora_on_the_untouched_base_while_saving(tmp_path):
    ids, base = torch.arange(10).view(2, 5), tiny_llama()
    config = MosLoraConfig(r=4, init_lora_weights="pissa", init_mixer="orthogonal", **TARGETS)
    model = get_peft_model(copy.deepcopy(base), config).eval()
    # The initial adapter is kept, to be subtracted later.
    model.peft_config["default"].init_lora_weights = True
    model.save_pretrained(tmp_path / "initial")
    model.peft_config["default"].init_lora_weights = "pissa"
    randomize_adapters(model, std=0.2)
    expected = model(ids).logits
    model.save_pretrained(tmp_path / "converted", path_initial_model_for_weight_conversion=tmp_path / "initial")
    loaded = PeftModel.from_pretrained(copy.deepcopy(base), tmp_path / "converted").eval()
    assert loaded.peft_config["default"].mixer == "identity"
    assert relative_difference(loaded(ids).logits, expected) < 1e-5
