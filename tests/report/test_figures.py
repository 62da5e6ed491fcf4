"""Parts of the figures: labels that do not overlap, colours, mixers read without torch."""

import itertools

import numpy
import pytest
import torch
from safetensors.torch import save_file

from moslora.errors import CheckpointError
from moslora.methods import METHODS
from moslora.report.canvas import spread
from moslora.report.colours import COLOURS, look
from moslora.report.mixers import _evenly, read_mixers

from . import studies


def test_labels_are_moved_apart_in_order():
    places = [1.0, 1.0, 5.0, 1.1]
    moved = spread(places, 0.5)
    ordered = sorted(moved)
    assert min(after - before for before, after in itertools.pairwise(ordered)) >= 0.5 - 1e-12
    assert sorted(range(4), key=lambda index: moved[index]) == [0, 1, 3, 2]
    assert sum(moved) == pytest.approx(sum(places))
    assert spread([0.0, 3.0], 0.5) == [0.0, 3.0]


def test_no_two_methods_look_alike():
    looks = {method: look(method) for method in METHODS}
    assert len(set(looks.values())) == len(looks)
    assert look("file:my.json") == look("file:my.json")


def test_colours_are_seen_on_white_paper_and_on_a_dark_screen():
    def luminance(colour):
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    dark = luminance("#14171b")
    for colour in {*COLOURS, *(look(method).colour for method in METHODS)}:
        assert 1.05 / (luminance(colour) + 0.05) >= 3, colour
        assert (luminance(colour) + 0.05) / (dark + 0.05) >= 3, colour


def test_mixers_are_read_as_they_were_written(tmp_path):
    written = studies.write_mixers(tmp_path, layers=12)
    found = read_mixers(tmp_path)
    assert list(found) == [f"model.layers.{number}.self_attn.q_proj" for number in range(12)]
    for layer, M in written.items():
        numpy.testing.assert_array_equal(found[layer], M)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_mixers_of_every_dtype_and_of_experts_are_read(tmp_path, dtype):
    M = torch.randn(3, 4, 4, dtype=dtype)
    save_file({"base_model.model.experts.lora_A.mixer": M}, tmp_path / "adapter_model.safetensors")
    found = read_mixers(tmp_path)
    assert list(found) == ["experts [0]", "experts [1]", "experts [2]"]
    numpy.testing.assert_array_equal(numpy.stack(list(found.values())), M.float().numpy())


def test_a_damaged_adapter_is_an_error(tmp_path):
    path = tmp_path / "adapter_model.safetensors"
    studies.write_mixers(tmp_path, layers=1)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(CheckpointError, match="safetensors"):
        read_mixers(tmp_path)


def test_shown_layers_span_the_model():
    assert _evenly(12, 4) == [0, 4, 7, 11]
    assert _evenly(3, 4) == [0, 1, 2]
