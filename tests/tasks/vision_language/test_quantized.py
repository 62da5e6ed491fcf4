"""A language model in 4 and 8 bits under an adapter, on a CPU: gradients of the numbers that the weights stand for."""

import dataclasses

import pytest
import torch
from torch import Tensor, nn

from moslora import runs
from moslora.tasks.vision_language.config import VisionLanguageTrainConfig
from moslora.tasks.vision_language.model import load_base, load_finished
from moslora.tasks.vision_language.train import load_adapted, train
from tests.helpers import randomize_adapters

from .conftest import IMAGE_SIZE, IMAGE_TOKENS, write_llava
from .test_train import SMALL

bitsandbytes = pytest.importorskip("bitsandbytes", reason="needs `pip install bitsandbytes`")
LAYERS = (bitsandbytes.nn.Linear4bit, bitsandbytes.nn.Linear8bitLt)


@pytest.fixture(scope="module")
def config(tmp_path_factory, shapes):
    """A tiny LLaVA whose language layers fill whole blocks of 64 weights."""
    folder = write_llava(tmp_path_factory.mktemp("llava"), hidden_size=64, intermediate_size=128)
    return VisionLanguageTrainConfig(
        model=str(folder),
        data=(str(shapes / "train.json"),),
        images=str(shapes / "images"),
        dtype="float32",
        **SMALL | {"dropout": 0.0},
    )


def _batch(model: nn.Module) -> dict[str, Tensor]:
    draw = torch.Generator().manual_seed(1)
    image = torch.full((2, IMAGE_TOKENS), model.config.image_token_id)
    tokens = torch.cat([image, torch.randint(9, 200, (2, 12), generator=draw)], 1)
    labels = tokens.masked_fill(tokens == model.config.image_token_id, -100)
    return {
        "input_ids": tokens,
        "labels": labels,
        "pixel_values": torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=draw),
    }


def _gradients(model: nn.Module) -> dict[str, Tensor]:
    model.zero_grad()
    batch = {
        name: value.to(next(model.parameters()).dtype) if name == "pixel_values" else value
        for name, value in _batch(model).items()
    }
    model.train()(**batch).loss.backward()
    return {name: each.grad.clone() for name, each in model.named_parameters() if each.requires_grad}


def _dequantized(config: VisionLanguageTrainConfig) -> dict[str, Tensor]:
    """Gradients in float64 of the same model with every quantised weight as the numbers it stands for."""
    quantized = load_adapted(config)
    plain = load_adapted(dataclasses.replace(config, quantize="none"))
    weights = dict(quantized.named_modules())
    replaced = 0
    for name, module in plain.named_modules():
        if isinstance(weights.get(name), LAYERS):
            module.weight.data = _numbers(weights[name])
            replaced += 1
    assert replaced == 14
    randomize_adapters(plain)
    return _gradients(plain.double())


def _numbers(layer: nn.Module) -> Tensor:
    weight = layer.weight
    if isinstance(layer, bitsandbytes.nn.Linear4bit):
        return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state)
    return weight.data.double() * weight.SCB.double()[:, None] / 127


@pytest.mark.parametrize("kernel", ["reference", "fused"])
@pytest.mark.parametrize(("kind", "limit"), [("nf4", 1e-4), ("int8", 3e-2)])
def test_training_gradients_are_those_of_the_dequantised_model(config, kind, limit, kernel):
    """To rounding in 4 bits. In 8 bits, bitsandbytes also quantises what its layers are given, an error of its own."""
    settings = dataclasses.replace(config, quantize=kind, kernel=kernel)
    model = load_adapted(settings)
    randomize_adapters(model)
    found, truth = _gradients(model), _dequantized(settings)
    assert found.keys() == truth.keys()
    parts = {name.partition(".layers.")[0].rpartition(".")[2] for name in found}
    assert {"encoder", "language_model"} <= parts
    assert any("multi_modal_projector" in name for name in found)
    for name, gradient in truth.items():
        assert (found[name].double() - gradient).norm() <= limit * gradient.norm(), name


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_only_the_language_model_is_quantised(config, kind):
    base = load_base(config.model, torch.bfloat16, quantize=kind)
    for name, module in base.named_modules():
        if isinstance(module, nn.Linear):
            assert isinstance(module, LAYERS) == (".language_model." in name), name
    assert base.model.vision_tower.encoder.layers[0].mlp.fc1.weight.dtype == torch.bfloat16


@pytest.mark.parametrize("kernel", ["reference", "fused"])
@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_an_evaluation_between_two_steps_changes_no_gradient(config, kind, kernel):
    """On a CPU with AVX512-BF16, bitsandbytes would repack 4-bit weights here, and gradients would be half wrong."""
    model = load_adapted(dataclasses.replace(config, quantize=kind, kernel=kernel))
    randomize_adapters(model)
    expected = _gradients(model)
    with torch.no_grad():
        model.eval()(**_batch(model))
    found = _gradients(model)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_run_in_4_bits_validates_in_the_middle_checkpoints_and_loads(config, tmp_path):
    settings = dataclasses.replace(
        config, quantize="nf4", dtype="bfloat16", gradient_checkpointing=True, validation_size=8, max_steps=4
    )
    record = train(settings, tmp_path / "run")
    rows = runs.read_rows(tmp_path / "run" / "metrics.jsonl")
    assert len([row for row in rows if "validation_loss" in row]) == 2
    assert record["status"] == "done"
    with_4_bits = load_finished(tmp_path / "run", record, torch.float32)
    exact = load_finished(tmp_path / "run", record, torch.float32, quantize="none")
    kinds = [sum(isinstance(module, LAYERS) for module in model.modules()) for model in (with_4_bits, exact)]
    assert kinds == [14, 0]
    adapters = [{n: p for n, p in m.named_parameters() if ".lora_" in n} for m in (with_4_bits, exact)]
    assert adapters[0].keys() == adapters[1].keys()
    assert all(torch.equal(adapters[0][name], adapters[1][name]) for name in adapters[0])
    # What 4 bits take away is small beside what they keep.
    with torch.no_grad():
        found, wanted = (model.eval()(**_batch(model)).logits for model in (with_4_bits, exact))
    assert (found - wanted).norm() < 0.3 * wanted.norm()
