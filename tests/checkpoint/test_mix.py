"""`moslora mix`: the mixed adapter computes the weighted sum, in MoSLoRA, in stock PEFT and by the formula."""

import json

import pytest
import torch
from peft import PeftModel

from moslora.checkpoint import export_adapter, load_adapter, mix_adapters, read_ranks
from moslora.checkpoint.files import read_safetensors, write_safetensors
from moslora.cli import main
from moslora.equation import block_diagonal_mixer, owners, stacked_rows
from moslora.errors import CheckpointError, ConfigError, UnsupportedError
from tests.adapter.architectures import TRANSFORMERS
from tests.checkpoint.adapters import adapt, adapted_toy, expected_updates, outputs
from tests.checkpoint.toy import toy
from tests.helpers import relative_difference, run_stock_peft

WEIGHTS = (0.7, -0.5)
EVERY = {"target_modules": ["embed", "conv", "grouped", "first", "second"], "target_parameters": None}
LINEAR = {"target_modules": ["first", "second"], "target_parameters": None}
ONE = {**EVERY, "r": 4, "lora_alpha": 8}
# Name -> the settings of two adapters. Between them every mixer, scale and shape.
PAIRS = {
    "moslora and lora": (ONE, {**ONE, "mixer": "identity", "r": 6, "lora_alpha": 3}),
    "butterfly and rslora": ({**ONE, "mixer": "butterfly"}, {**ONE, "use_rslora": True, "lora_alpha": 5}),
    "patterns": (
        {**ONE, "rank_pattern": {"first": 2, "conv": 6}, "alpha_pattern": {"second": 3, "conv": 1}},
        {**ONE, "rank_pattern": {"embed": 3}, "mixer_pattern": {"second": "butterfly", "grouped": "identity"}},
    ),
    "layers of one only": (
        {**ONE, "target_modules": ["embed", "conv", "first"]},
        {**ONE, "target_modules": ["second"]},
    ),
    "core and moslora": (
        {**ONE, "mixer": "core", "target_modules": ["conv", "first"]},
        {**ONE, "r": 2, "target_modules": ["conv", "first", "second"]},
    ),
}

STOCK_PEFT = """
import pathlib, torch
from peft import PeftModel
from tests.checkpoint.toy import toy, words
for folder in pathlib.Path(args[0]).glob("*/lora"):
    model = PeftModel.from_pretrained(toy(), folder).eval()
    with torch.no_grad():
        torch.save(model(words()), folder.parent / "outputs.pt")
"""


def both_at_once(folders, weights, base=toy):
    """The base with all adapters active, each at its weight: PEFT's own sum."""
    model = PeftModel.from_pretrained(base(), folders[0], adapter_name="0")
    for number, folder in enumerate(folders[1:], 1):
        model.load_adapter(folder, adapter_name=str(number))
    names = [str(number) for number in range(len(folders))]
    model.base_model.set_adapter(names)
    for layer in model.modules():
        if hasattr(layer, "lora_A"):
            for name, weight in zip(names, weights, strict=True):
                if name in layer.scaling:
                    layer.scaling[name] *= weight
    return model.eval()


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    root = tmp_path_factory.mktemp("mix")
    models, reports = {}, {}
    for name, settings in PAIRS.items():
        folders = [root / name / each for each in ("a", "b")]
        models[name] = [adapted_toy(folders[n], seed=n, **each) for n, each in enumerate(settings)]
        reports[name] = mix_adapters(folders, root / name / "mixed", weights=WEIGHTS)
        export_adapter(root / name / "mixed", root / name / "lora")
    run_stock_peft(STOCK_PEFT, root)
    return root, models, reports


@pytest.mark.parametrize("name", PAIRS)
def test_the_mixed_adapter_computes_what_both_adapters_compute_together(mixed, name):
    root, _, _ = mixed
    expected = outputs(both_at_once([root / name / "a", root / name / "b"], WEIGHTS))
    found = outputs(PeftModel.from_pretrained(toy(), root / name / "mixed").eval())
    assert relative_difference(found, expected) < 1e-6
    assert relative_difference(outputs(toy()), expected) > 1e-2, "the adapters do nothing, so nothing was tested"


@pytest.mark.parametrize("name", PAIRS)
def test_stock_peft_computes_the_same_with_the_export(mixed, name):
    root, _, _ = mixed
    expected = outputs(both_at_once([root / name / "a", root / name / "b"], WEIGHTS))
    assert relative_difference(torch.load(root / name / "outputs.pt"), expected) < 1e-6


@pytest.mark.parametrize("name", PAIRS)
def test_the_update_of_each_linear_layer_is_the_weighted_sum_of_the_formula(mixed, name):
    root, models, reports = mixed
    layers = load_adapter(root / name / "mixed").layers
    updates = [expected_updates(model) for model in models[name]]
    for layer_name in {*updates[0], *updates[1]}:
        expected = sum(w * each[layer_name] for w, each in zip(WEIGHTS, updates, strict=True) if layer_name in each)
        layer = layers[layer_name]
        found = layer.scale * layer.B.double() @ layer.M.double() @ layer.A.double()
        assert (found - expected).norm() / expected.norm() < 1e-6
    assert reports[name].largest[1] < 1e-6
    assert reports[name].differences.keys() == layers.keys()


@pytest.mark.parametrize("name", PAIRS)
def test_ranks_add_up_and_the_mixer_is_zero_between_the_adapters(mixed, name):
    root, models, _ = mixed
    layers, ranks = load_adapter(root / name / "mixed").layers, read_ranks(root / name / "mixed")
    for layer_name, layer in layers.items():
        theirs = [getattr(model.get_base_model().get_submodule(layer_name), "r", {}) for model in models[name]]
        assert ranks[layer_name] == [each.get("default", 0) for each in theirs]
        assert layer.r == sum(ranks[layer_name])
        groups = 2 if layer_name == "grouped" else 1
        owner = owners([r for r in ranks[layer_name] if r], groups)
        assert (layer.M[owner[:, None] != owner] == 0).all()
        assert (layer.M[owner[:, None] == owner] != 0).any()


def test_three_adapters_of_sixteen_bits_lose_nothing_but_the_rounding_of_the_mixer(tmp_path):
    folders = [tmp_path / name for name in "abc"]
    for seed, folder in enumerate(folders):
        adapted_toy(folder, seed=seed, dtype=torch.bfloat16, **{**LINEAR, "r": seed + 1})
    report = mix_adapters(folders, tmp_path / "mixed")
    assert report.ranks == {"first": [1, 2, 3], "second": [1, 2, 3]}
    assert report.largest[1] < 1e-6
    record = json.loads((tmp_path / "mixed" / "mix.json").read_text())
    assert [each["weight"] for each in record["adapters"]] == [1.0, 1.0, 1.0]


def test_rows_of_a_grouped_convolution_stand_group_by_group():
    assert stacked_rows([4, 2], 2).tolist() == [0, 1, 4, 2, 3, 5]
    assert owners([4, 2], 2).tolist() == [0, 0, 1, 0, 0, 1]
    assert stacked_rows([3, 2]).tolist() == [0, 1, 2, 3, 4]
    M, N = torch.arange(16.0).reshape(4, 4), -torch.ones(2, 2)
    both = block_diagonal_mixer([M, N], 2)
    assert torch.equal(both[[0, 1, 3, 4]][:, [0, 1, 3, 4]], M)
    assert torch.equal(both[[2, 5]][:, [2, 5]], N)
    assert both.count_nonzero() == M.count_nonzero() + 4


def test_a_layer_whose_name_ends_another_name_keeps_its_rank(tmp_path):
    class Outer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.inner = torch.nn.Linear(8, 8), torch.nn.Module()
            self.inner.first = torch.nn.Linear(8, 8)

        def forward(self, x):
            return self.inner.first(self.first(x))

    for name, ranks in (("a", {"inner.first": 3}), ("b", {"inner.first": 2})):
        adapt(Outer(), tmp_path / name, r=4, target_modules=["first"], rank_pattern=ranks)
    report = mix_adapters([tmp_path / "a", tmp_path / "b"], tmp_path / "mixed")
    assert report.ranks == {"first": [4, 4], "inner.first": [3, 2]}
    PeftModel.from_pretrained(Outer(), tmp_path / "mixed")


@pytest.mark.parametrize(
    ("config", "found"),
    [
        ({"use_dora": True}, "first.lora_magnitude_vector.*not additive"),
        ({"lora_bias": True}, "first.lora_B.bias: not a part of B M A"),
        ({"modules_to_save": ["head"]}, "head.weight: a tensor that replaces"),
        ({"init_lora_weights": "pissa", "init_mixer": "orthogonal"}, "init_lora_weights='pissa': it changed the base"),
        ({"target_parameters": ["experts.up"]}, "target_parameters: a saved adapter does not say"),
    ],
)
def test_what_is_no_sum_of_updates_is_refused_with_its_reason(config, found, tmp_path):
    adapted_toy(tmp_path / "a", r=4, **LINEAR)
    adapted_toy(tmp_path / "b", **{**LINEAR, "r": 4, **config})
    with pytest.raises(UnsupportedError, match=found) as caught:
        mix_adapters([tmp_path / "a", tmp_path / "b"], tmp_path / "mixed")
    assert str(tmp_path / "b") in str(caught.value)
    assert {path.name for path in tmp_path.iterdir()} == {"a", "b"}


def test_adapters_of_different_bases_are_refused_unless_told_that_they_are_one(tmp_path):
    for name, base in (("a", "models/one"), ("b", "owner/one")):
        adapted_toy(tmp_path / name, r=4, base_model_name_or_path=base, **LINEAR)
        config = json.loads((tmp_path / name / "adapter_config.json").read_text())
        (tmp_path / name / "adapter_config.json").write_text(json.dumps({**config, "base_model_name_or_path": base}))
    folders = [tmp_path / "a", tmp_path / "b"]
    with pytest.raises(ConfigError, match=r"models/one, owner/one.*--base NAME"):
        mix_adapters(folders, tmp_path / "mixed")
    mix_adapters(folders, tmp_path / "mixed", base="owner/one")
    assert (
        json.loads((tmp_path / "mixed" / "adapter_config.json").read_text())["base_model_name_or_path"] == "owner/one"
    )
    adapt(torch.nn.Sequential(torch.nn.Linear(4, 4)), tmp_path / "c", target_modules=["0"])
    adapt(torch.nn.Sequential(torch.nn.Linear(4, 5)), tmp_path / "d", target_modules=["0"])
    with pytest.raises(ConfigError, match=r"0: the adapters fit layers of the shapes \(4, 4.*\) and \(5, 4"):
        mix_adapters([tmp_path / "c", tmp_path / "d"], tmp_path / "other")


def test_weights_and_folders_are_checked(tmp_path):
    adapted_toy(tmp_path / "a", r=4, **LINEAR)
    twice = [tmp_path / "a", tmp_path / "a"]
    for arguments, message in (
        ({"folders": twice[:1]}, "at least two"),
        ({"folders": twice, "weights": [1.0]}, "one finite number for each"),
        ({"folders": twice, "weights": [1.0, float("nan")]}, "one finite number for each"),
    ):
        with pytest.raises(ConfigError, match=message):
            mix_adapters(**arguments, out=tmp_path / "mixed")
    with pytest.raises(CheckpointError, match=r"found no mix.json"):
        read_ranks(tmp_path / "a")
    with pytest.raises(CheckpointError, match="cancel one another"):
        mix_adapters(twice, tmp_path / "mixed", weights=[1.0, -1.0])
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_wrong_mixer_in_the_result_would_be_noticed(tmp_path, monkeypatch):
    for seed, name in enumerate("ab"):
        adapted_toy(tmp_path / name, seed=seed, r=4, **LINEAR)

    def damaging(path, tensors, metadata=None):
        write_safetensors(path, {key: 1.001 * value if "mixer" in key else value for key, value in tensors.items()})

    monkeypatch.setattr("moslora.checkpoint.mix.write_safetensors", damaging)
    with pytest.raises(CheckpointError, match=r"differs by 1\.0e-03"):
        mix_adapters([tmp_path / "a", tmp_path / "b"], tmp_path / "mixed")
    assert not (tmp_path / "mixed").exists()


def test_the_command_prints_how_exact_the_result_is(tmp_path, capsys):
    for seed, name in enumerate("ab"):
        adapted_toy(tmp_path / name, seed=seed, r=4, **LINEAR)
    names = [str(tmp_path / name) for name in ("a", "b")]
    assert main(["mix", *names, "--weights", "0.7", "0.5", "--out", str(tmp_path / "mixed")]) == 0
    printed = capsys.readouterr().out
    assert "2 layers, 2 of them with blocks of several adapters" in printed
    assert "verified: largest relative difference" in printed
    tensors, _ = read_safetensors(tmp_path / "mixed" / "adapter_model.safetensors")
    assert tensors["base_model.model.first.lora_A.mixer"].shape == (8, 8)
    assert main(["mix", *names, "--out", str(tmp_path / "mixed")]) == 1
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["gpt2", "bert", "llama", "t5", "vit"])
def test_real_architectures_compute_the_sum(name, tmp_path):
    kind = TRANSFORMERS[name]
    config = {
        key: value for key, value in kind.config.items() if key != "task_type"
    }  # no trained head, which is refused

    def build():
        torch.manual_seed(0)
        return kind.build().eval()

    for seed, folder in enumerate("ab"):
        adapt(build(), tmp_path / folder, seed=seed, std=0.1, r=4 - seed, **config)
    mix_adapters([tmp_path / "a", tmp_path / "b"], tmp_path / "mixed", weights=WEIGHTS)
    expected = both_at_once([tmp_path / "a", tmp_path / "b"], WEIGHTS, build)
    found = PeftModel.from_pretrained(build(), tmp_path / "mixed").eval()
    with torch.no_grad():
        ours, theirs, plain = (model(**kind.inputs())[0] for model in (found, expected, build()))
    assert relative_difference(ours, theirs) < 1e-5
    assert relative_difference(plain, theirs) > 1e-3


def test_the_two_adapters_of_a_multihead_attention_are_mixed_too(tmp_path):
    class Attention(torch.nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.attn = torch.nn.MultiheadAttention(16, 4, batch_first=True)

        def forward(self, x):
            return self.attn(x, x, x)[0]

    for seed, folder in enumerate("ab"):
        adapt(Attention(), tmp_path / folder, seed=seed, r=4 - seed, target_modules=["attn"])
    report = mix_adapters([tmp_path / "a", tmp_path / "b"], tmp_path / "mixed", weights=WEIGHTS)
    assert list(report.ranks.values()) == [[4, 3], [4, 3]]
    x = torch.randn(2, 3, 16, generator=torch.Generator().manual_seed(0))
    expected = both_at_once([tmp_path / "a", tmp_path / "b"], WEIGHTS, Attention)
    found = PeftModel.from_pretrained(Attention(), tmp_path / "mixed").eval()
    with torch.no_grad():
        assert relative_difference(found(x), expected(x)) < 1e-5
