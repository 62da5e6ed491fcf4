"""Every method: it starts at the base model, learns, is saved, loaded, merged, and differs from LoRA as it should."""

import json
import math

import peft
import pytest
import torch

from moslora import MosLoraConfig, initialize_mixer, methods
from moslora.adapter import awaits_gradient
from moslora.equation import Factors, adapter_output
from moslora.errors import ConfigError, UnsupportedError
from tests.helpers import relative_difference, tiny_llama

TARGETS = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
SETTINGS = {"rank": 4, "alpha": 8, "dropout": 0.0, "target_modules": TARGETS}
NEVER_LEARNS = "moslora-zeros"
ADAPTERS = [name for name in methods.METHODS if name != methods.FULL]
TOKENS = torch.randint(0, 64, (4, 12), generator=torch.Generator().manual_seed(0))


def attached(method: str, **changes: object) -> torch.nn.Module:
    model = tiny_llama()
    torch.manual_seed(1)
    adapted = methods.attach(model, method, **{**SETTINGS, **changes})
    if awaits_gradient(adapted):
        initialize_mixer(adapted, [{"input_ids": TOKENS, "labels": TOKENS}])
    return adapted


def logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model.eval()(input_ids=TOKENS).logits


def train_steps(model: torch.nn.Module, method: str, steps: int = 3) -> list[float]:
    """The losses before each step and after the last."""
    settings = {"lr": 1e-2, "weight_decay": 0.0}
    optimizer = methods.create_optimizer(model, method, torch.optim.AdamW, **settings)
    optimizer = optimizer or torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), **settings)
    losses = []
    for _ in range(steps):
        loss = model.train()(input_ids=TOKENS, labels=TOKENS).loss
        losses.append(loss.item())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    return [*losses, model(input_ids=TOKENS, labels=TOKENS).loss.item()]


@pytest.mark.filterwarnings("ignore:init_mixer='zeros'")
@pytest.mark.parametrize("method", ADAPTERS)
def test_a_method_starts_at_the_base_learns_and_comes_back_from_its_file(method, tmp_path):
    base = logits(tiny_llama())
    model = attached(method)
    assert relative_difference(logits(model), base) < (1e-5 if method == "pissa" else 1e-30)

    losses = train_steps(model, method)
    trained = logits(model)
    if method == NEVER_LEARNS:
        assert losses[-1] == losses[0]
        assert torch.equal(trained, base)
    else:
        assert losses[-1] < losses[0]
        assert relative_difference(trained, base) > 1e-3

    model.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(tiny_llama(), tmp_path)
    assert relative_difference(logits(again), trained) < (1e-5 if method == "pissa" else 1e-30)
    assert relative_difference(logits(again.merge_and_unload(safe_merge=True)), trained) < 1e-5


def test_full_fine_tuning_trains_every_parameter():
    model = methods.attach(tiny_llama(), "full", **SETTINGS)
    assert methods.trained_parameters(model) == sum(each.numel() for each in model.parameters())
    before = [each.detach().clone() for each in model.parameters()]
    losses = train_steps(model, "full")
    assert losses[-1] < losses[0]
    assert not any(torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))


def _layer(model: torch.nn.Module) -> torch.nn.Module:
    return model.base_model.model.model.layers[0].self_attn.q_proj


def _double(method: str) -> torch.nn.Module:
    """A model in float64 whose B is not zero."""
    model = attached(method).double()
    draw = torch.Generator().manual_seed(2)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.data = torch.randn(parameter.shape, generator=draw, dtype=torch.float64)
    return model


def _product_gradient(layer: torch.nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Output of a layer, and the gradient of B of the sum of its squares."""
    output = layer(x)
    (gradient,) = torch.autograd.grad(output.square().sum(), [layer.lora_B["default"].weight])
    return output.detach(), gradient


def test_folded_starts_with_the_function_and_the_gradient_of_B_of_moslora():
    x = torch.randn(3, 7, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    mixed, folded, frozen = (_layer(_double(f"moslora{end}")) for end in ("", "-folded", "-frozen"))
    factors = Factors(*(mixed.lora_A["default"].raw, mixed.lora_A["default"].mixer, mixed.lora_B["default"].weight))
    truth = mixed.base_layer(x) + adapter_output(x, factors, 2.0)
    for layer in (mixed, folded, frozen):
        output, gradient = _product_gradient(layer, x)
        assert relative_difference(output, truth) < (1e-6 if layer is folded else 1e-14)  # folded in float32
        assert relative_difference(gradient, _product_gradient(mixed, x)[1]) < 1e-6


def test_folded_is_plain_lora_and_frozen_keeps_its_mixer_also_when_everything_is_unfrozen(tmp_path):
    folded, frozen = attached("moslora-folded"), attached("moslora-frozen")
    assert type(folded.peft_config["default"]) is peft.LoraConfig
    assert {name.split(".")[-3] for name, _ in folded.named_parameters() if "lora_" in name} == {"lora_A", "lora_B"}

    mixer = _layer(frozen).lora_A["default"].mixer.clone()
    assert torch.equal(mixer, _layer(attached("moslora")).lora_A["default"].mixer)
    frozen.requires_grad_(True)
    frozen.set_adapter("default")
    train_steps(frozen, "moslora-frozen")
    assert torch.equal(_layer(frozen).lora_A["default"].mixer, mixer)
    frozen.save_pretrained(tmp_path)
    again = peft.PeftModel.from_pretrained(tiny_llama(), tmp_path, is_trainable=True)
    train_steps(again, "moslora-frozen")
    assert torch.equal(_layer(again).lora_A["default"].mixer, mixer)


def test_a_frozen_mixer_is_refused_on_an_embedding():
    with pytest.raises(UnsupportedError, match="mixer_pattern"):
        peft.get_peft_model(tiny_llama(), MosLoraConfig(target_modules=["embed_tokens"], mixer="frozen"))


def test_lora_scaled_is_lora_with_a_smaller_A_and_that_is_how_much_a_kaiming_mixer_shrinks_it():
    plain, scaled = (_layer(attached(method)).lora_A["default"].weight for method in ("lora", "lora-scaled"))
    assert torch.equal(scaled, plain / math.sqrt(3))
    draw = torch.Generator().manual_seed(0)
    A = torch.randn(16, 200, generator=draw)
    mixers = torch.empty(4000, 16, 16).uniform_(-1 / 4, 1 / 4, generator=draw)  # Kaiming, a = sqrt(5), of 16 columns
    shrunk = (mixers @ A).square().sum((1, 2)).mean().sqrt() / A.norm()
    assert shrunk.item() == pytest.approx(1 / math.sqrt(3), rel=0.01)


def test_lora_plus_gives_B_sixteen_times_the_rate_of_A():
    model = attached("lora-plus")
    optimizer = methods.create_optimizer(model, "lora-plus", torch.optim.AdamW, lr=1e-3, weight_decay=0.1)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    rates = {
        names[id(p)]: (group["lr"], group["weight_decay"]) for group in optimizer.param_groups for p in group["params"]
    }
    assert rates.keys() == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert all(rate == ((1.6e-2 if "lora_B" in name else 1e-3), 0.1) for name, rate in rates.items())
    assert methods.create_optimizer(model, "lora", torch.optim.AdamW, lr=1e-3, weight_decay=0.1) is None


def test_adalora_of_equal_ranks_has_nothing_to_allocate_and_pefts_allocation_fails_there():
    model = attached("adalora")
    assert not methods.allocates_ranks(model)
    config = model.peft_config["default"]
    assert (config.init_r, config.target_r) == (4, 4)
    model(input_ids=TOKENS, labels=TOKENS).loss.backward()
    model.base_model.update_and_allocate(0)
    config.total_step = 10
    with pytest.raises(RuntimeError, match="kthvalue"):
        model.base_model.update_and_allocate(1)


def test_scale_is_alpha_over_r_but_for_rslora():
    for method in ("lora", "moslora", "dora", "pissa"):
        assert _layer(attached(method)).scaling["default"] == 2.0
    for method in ("loha", "lokr"):
        assert _layer(attached(method)).scaling["default"] == 2.0
    assert _layer(attached("rslora")).scaling["default"] == 8 / math.sqrt(4)
    adalora = _layer(attached("adalora"))
    assert adalora.scaling["default"] / adalora.ranknum["default"].item() == 2.0


def _file(folder, **settings) -> str:
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(settings))
    return f"file:{path}"


def test_a_file_gives_every_setting(tmp_path):
    saved = peft.VeraConfig(r=8, target_modules=["q_proj"], task_type="CAUSAL_LM", inference_mode=True)
    saved.base_model_name_or_path = "somewhere"
    saved.save_pretrained(tmp_path)
    model = attached(f"file:{tmp_path / 'adapter_config.json'}")
    config = model.peft_config["default"]
    assert (type(config), config.r, config.target_modules) == (peft.VeraConfig, 8, {"q_proj"})
    assert not config.inference_mode
    assert config.base_model_name_or_path != "somewhere"
    losses = train_steps(model, f"file:{tmp_path / 'adapter_config.json'}")
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"peft_type": "LORO"}, "found peft_type 'LORO', expected one of .*LORA"),
        ({"r": 8}, "found peft_type None"),
        ({"peft_type": "LORA", "rnk": 8}, "no setting 'rnk'"),
        ({"peft_type": "LORA", "lora_alfa": 8}, "Did you mean 'lora_alpha'"),
        ({"peft_type": "LORA", "auto_mapping": {"parent_library": "x"}}, "auto_mapping would load"),
        ({"peft_type": "LORA", "init_lora_weights": "eva"}, "needs a pass over data"),
        ({"peft_type": "LORA", "task_type": "SEQ_CLS"}, "expected CAUSAL_LM"),
        ({"peft_type": "LORA", "target_modules": ["nowhere"]}, "nowhere"),
        ({"peft_type": "LORA", "layers_pattern": "h", "target_modules": ["q_proj"]}, "PEFT refuses"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(tmp_path, settings, message):
    with pytest.raises(ConfigError, match=message):
        attached(_file(tmp_path, **settings))


def test_a_missing_or_broken_file_says_so(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        attached(f"file:{tmp_path / 'none.json'}")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(ConfigError, match="holds a list"):
        attached(f"file:{tmp_path / 'list.json'}")
    (tmp_path / "torn.json").write_text("{")
    with pytest.raises(ConfigError, match="is not JSON"):
        attached(f"file:{tmp_path / 'torn.json'}")


def test_matched_ranks():
    with torch.device("meta"):
        base = tiny_llama()
    settings = {name: value for name, value in SETTINGS.items() if name != "rank"}

    def count(method: str, rank: int) -> int:
        return methods.parameters_at(method, base, rank=rank, **settings)

    assert methods.matched_rank("loha", base, count("lora", 8), **settings) == 4
    assert methods.matched_rank("lora", base, count("lora", 7), **settings) == 7
    assert methods.matched_rank("ts-mixing", base, count("lora", 7), **settings) == 6
    target = count("moslora", 6)
    rank = methods.matched_rank("dora", base, target, **settings)
    assert abs(count("dora", rank) - target) == min(abs(count("dora", each) - target) for each in range(1, 20))
    with pytest.raises(ConfigError, match="the nearest is rank"):
        methods.matched_rank("lokr", base, 10**8, **settings)
    with pytest.raises(ConfigError, match="no rank to choose"):
        methods.matched_rank("full", base, 10, **settings)
    assert all(each.requires_grad for each in base.parameters())
    assert not any("lora" in name for name, _ in base.named_modules())


@pytest.mark.parametrize("method", ["lora", "moslora", "ts-mixing", "moslora-dora", "rslora", "pissa", "loha", "lokr"])
def test_ranks_scales_and_mixers_may_differ_by_name(method, tmp_path):
    first = r".*layers\.0\..*"
    mixed = "mixer_pattern" in methods.find_method(method).patterns
    patterns = {"rank_pattern": {first: 2}, "alpha_pattern": {first: 1}}
    model = attached(method, **patterns, **({"mixer_pattern": {first: "identity"}} if mixed else {}))
    usual, small = attached(method), attached(method, rank=2, alpha=1)
    layers = {n: m for n, m in model.named_modules() if isinstance(getattr(m, "scaling", None), dict)}
    assert len(layers) == 2 * len(TARGETS)
    for name, layer in layers.items():
        alone = (small if ".layers.0." in name else usual).get_submodule(name)
        assert layer.scaling == pytest.approx(alone.scaling)
        assert layer.r == alone.r
    mixers = [name for name, _ in model.named_parameters() if name.endswith(".mixer")]
    assert not [name for name in mixers if ".layers.0." in name]
    assert bool(mixers) == method.startswith("moslora")


def test_a_pattern_that_a_method_does_not_know_is_refused():
    with pytest.raises(ConfigError, match=r"'lora' has no mixer_pattern: it knows rank_pattern, alpha_pattern\."):
        methods.peft_config("lora", **SETTINGS, mixer_pattern={"x": "identity"})
    with pytest.raises(ConfigError, match="'adalora' has no alpha_pattern, rank_pattern: it knows none"):
        methods.peft_config("adalora", **SETTINGS, rank_pattern={"x": 2}, alpha_pattern={"x": 2})


def test_modules_are_trained_as_a_whole_beside_the_adapter():
    model = attached("moslora", modules_to_save=["lm_head"])
    whole = [name for name, each in model.named_parameters() if each.requires_grad and "lora_" not in name]
    assert whole == ["base_model.model.lm_head.modules_to_save.default.weight"]
