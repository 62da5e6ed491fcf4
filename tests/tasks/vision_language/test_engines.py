"""A LLaVA whose weights are spread trains what one process trains, and its adapter and projector are saved whole."""

import dataclasses
import json
from pathlib import Path

import pytest
import safetensors.torch

from moslora.tasks.vision_language.train import train
from tests.helpers import command_line
from tests.tasks.engines import difference, losses, needs_deepspeed, start

from .test_train import config  # noqa: F401

ENGINES = ["fsdp2", pytest.param("zero2", marks=needs_deepspeed), pytest.param("zero3", marks=needs_deepspeed)]


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_trains_what_one_process_does(engine, config, tmp_path):  # noqa: F811
    settings = dataclasses.replace(config, dropout=0.0, micro_batch_size=2)
    if engine.startswith("zero"):  # after a batch of text alone, DeepSpeed moves the vision tower by its momentum
        rows = [row for row in json.loads(Path(settings.data[0]).read_text()) if "image" in row]
        (tmp_path / "images.json").write_text(json.dumps(rows))
        settings = dataclasses.replace(settings, data=(str(tmp_path / "images.json"),))
    train(settings, tmp_path / "one")
    start(engine, 2, command_line("vision-language", settings, tmp_path / "two"))
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    assert difference(tmp_path / "two", tmp_path / "one") < 1e-5
    one, two = (safetensors.torch.load_file(tmp_path / run / "projector.safetensors") for run in ("one", "two"))
    assert {name: value.shape for name, value in one.items()} == {name: value.shape for name, value in two.items()}
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 1e-5
