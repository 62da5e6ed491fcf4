"""A run on a 4-bit or 8-bit base, merged into 16 bits, against what the run itself computes, by real bitsandbytes."""

import pytest
import torch
from torch import nn
from transformers import BitsAndBytesConfig, LlavaForConditionalGeneration

from moslora.checkpoint import Quantization, merge_adapter
from moslora.checkpoint.shards import Weights
from moslora.cli import main
from moslora.errors import ConfigError
from tests.checkpoint.llava import adapt_llava, llava_folder, load, logits

bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs `pip install bitsandbytes`")

KINDS = ["nf4", "nf4-double", "int8"]
SKIPPED = (r".*vision_tower", r".*multi_modal_projector", "lm_head")


def quantization(kind):
    name, _, double = kind.partition("-")
    return Quantization(name, double=bool(double), skipped=SKIPPED)


def quantized(folder, kind, dtype=torch.bfloat16):
    """The base of a run, as the run loads it."""
    if kind == "int8":
        settings = {"load_in_8bit": True, "llm_int8_threshold": 0.0}
    else:
        settings = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": dtype}
        settings["bnb_4bit_use_double_quant"] = kind == "nf4-double"
    config = BitsAndBytesConfig(**settings, llm_int8_skip_modules=list(SKIPPED))
    return load(folder, dtype, quantization_config=config, device_map={"": "cpu"})


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """For each kind: the adapter of a run, and what the run says of an image."""
    root = tmp_path_factory.mktemp("quantized")
    folder, said = llava_folder(root, "bfloat16"), {}
    for kind in KINDS:
        model = adapt_llava(quantized(folder, kind), root / kind / "adapter")
        said[kind] = logits(model, folder, torch.bfloat16)
    return root, folder, said


def distance(found, expected):
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("kind", KINDS)
def test_layers_and_numbers_are_those_of_transformers_and_bitsandbytes(kind, runs):
    _, folder, _ = runs
    model, found = quantized(folder, kind), quantization(kind)
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt))
    }
    assert found.layers(LlavaForConditionalGeneration(model.config)) == layers.keys()
    weights = Weights(folder)
    for name, layer in layers.items():
        key = name.replace("model.language_model.", "language_model.model.") + ".weight"
        if kind == "int8":
            expected = layer.weight.data.double() * layer.weight.SCB.double()[:, None] / 127
            expected = expected.bfloat16()
        else:
            expected = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        assert torch.equal(found.dequantized(weights.load(key)), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_a_merge_onto_dequantised_weights_computes_what_the_run_computes_and_the_other_does_not(kind, runs, tmp_path):
    root, folder, said = runs
    found = {}
    for onto in ("original", "dequantized"):
        report = merge_adapter(
            root / kind / "adapter", tmp_path / onto, base=folder, quantization=quantization(kind), onto=onto
        )
        assert (report.way, report.roundings <= 1.001) == ("streamed", True)
        assert report.dequantized == (14 if onto == "dequantized" else 0)
        found[onto] = distance(logits(load(tmp_path / onto), folder, torch.bfloat16), said[kind])
    twice = distance(merged_by_peft(root / kind / "adapter", folder, kind), said[kind])
    print(f"{kind}: distance of the logits from the run's: {found}, PEFT's own merge {twice:.4f}")
    if kind == "int8":  # LLM.int8() rounds activations as well, which no merge can keep
        assert found["dequantized"] < 1.1 * found["original"]
    else:
        assert found["dequantized"] < found["original"] / 3
        assert found["dequantized"] < twice / 3


def merged_by_peft(adapter, folder, kind):
    """Merged into the quantised layers, whose sum PEFT quantises again."""
    from peft import PeftModel

    model = PeftModel.from_pretrained(quantized(folder, kind), adapter)
    return logits(model.merge_and_unload().eval(), folder, torch.bfloat16)


def test_layers_without_an_adapter_are_dequantised_too(runs, tmp_path):
    root, folder, _ = runs
    merge_adapter(
        root / "nf4" / "adapter", tmp_path / "m", base=folder, quantization=quantization("nf4"), onto="dequantized"
    )
    before, after = Weights(folder), Weights(tmp_path / "m")
    key = "language_model.model.layers.0.mlp.gate_proj.weight"  # not a target
    assert torch.equal(after.load(key), quantization("nf4").dequantized(before.load(key)))
    assert not torch.equal(after.load(key), before.load(key))
    key = "vision_tower.vision_model.encoder.layers.0.mlp.fc2.weight"
    assert torch.equal(after.load(key), before.load(key))


def test_onto_dequantised_without_how_is_refused(runs, tmp_path):
    root, folder, _ = runs
    with pytest.raises(ConfigError, match="--quantization"):
        merge_adapter(root / "nf4" / "adapter", tmp_path / "m", base=folder, onto="dequantized")


@pytest.mark.parametrize("onto", ["original", "dequantized"])
def test_the_command_takes_the_quantisation_as_given_and_says_onto_what_it_merged(onto, runs, tmp_path, capsys):
    root, folder, _ = runs
    arguments = ["merge", str(root / "nf4" / "adapter"), str(tmp_path / "m"), "--base", str(folder)]
    assert main([*arguments, "--quantization", "nf4", "--onto", onto]) == 0
    printed = capsys.readouterr().out
    assert {"original": "onto the original weights", "dequantized": "onto the weights of the run"}[onto] in printed
    assert "of one rounding from W + delta W" in printed


def test_nothing_that_is_no_linear_layer_counts_as_quantised():
    class Odd(nn.Module):
        _keep_in_fp32_modules = None

        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(2, 2), nn.Embedding(2, 2)

        def get_output_embeddings(self):
            return None

    assert Quantization("nf4", skipped=()).layers(Odd()) == {"a"}
