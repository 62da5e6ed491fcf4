"""The build script: the same seed gives the same model, and the shipped tokenizer."""

import pytest
import torch
from safetensors.torch import load_file

from moslora.embedded import build, model_folder

STEPS = 3


@pytest.mark.slow
def test_a_short_build_repeated_gives_the_same_weights(tmp_path):
    for name, seed in (("one", 0), ("again", 0), ("other", 1)):
        build.build(tmp_path / name, steps=STEPS, seed=seed)
    one, again, other = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "again", "other"))
    assert all(torch.equal(one[key], again[key]) for key in one)
    assert not all(torch.equal(one[key], other[key]) for key in one)


def test_a_build_has_the_shapes_and_the_tokenizer_of_the_shipped_model(tmp_path):
    build.build(tmp_path, steps=1)
    shapes = [
        {name: tensor.shape for name, tensor in load_file(folder / "model.safetensors").items()}
        for folder in (tmp_path, model_folder())
    ]
    assert shapes[0] == shapes[1]
    for name in ("tokenizer.json", "tokenizer_config.json", "config.json", "generation_config.json"):
        assert (tmp_path / name).read_text() == (model_folder() / name).read_text()
