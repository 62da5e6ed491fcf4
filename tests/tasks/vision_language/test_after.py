"""What comes after a real training run: merging it without saying anything more, and exporting it for VLMEvalKit."""

import pytest
import torch

from moslora import runs
from moslora.checkpoint.projectors import read_projector
from moslora.checkpoint.shards import Weights
from moslora.cli import main
from moslora.tasks.vision_language.config import VisionLanguageTrainConfig
from moslora.tasks.vision_language.model import load_finished
from moslora.tasks.vision_language.train import train
from tests.checkpoint.llava import load
from tests.helpers import relative_difference

from .conftest import IMAGE_SIZE, IMAGE_TOKENS, write_llava

pytest.importorskip("bitsandbytes", reason="needs `pip install bitsandbytes`")

SMALL = {
    "rank": 8,
    "alpha": 64,
    "vision_rank": 4,
    "vision_alpha": 16,
    "batch_size": 8,
    "micro_batch_size": 4,
    "max_steps": 4,
    "learning_rate": 1e-2,
    "max_tokens": 128,
}


@pytest.fixture(scope="module")
def run(shapes, tmp_path_factory):
    """A finished run on a 4-bit base, with the projector trained along."""
    root = tmp_path_factory.mktemp("after")
    base = write_llava(root / "llava", hidden_size=64, intermediate_size=128)
    data = {"data": (str(shapes / "train.json"),), "images": str(shapes / "images")}
    train(VisionLanguageTrainConfig(model=str(base), quantize="nf4", **data, **SMALL), root / "run")
    return root / "run"


def logits(model):
    draw = torch.Generator().manual_seed(0)
    images = torch.full((2, IMAGE_TOKENS), model.config.image_token_id)
    tokens = torch.cat([images, torch.randint(9, 200, (2, 12), generator=draw)], 1)
    pictures = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=draw)
    with torch.no_grad():
        return model.eval()(input_ids=tokens, pixel_values=pictures).logits


def test_a_merge_needs_nothing_but_the_run_and_computes_what_it_computes(run, tmp_path, capsys):
    assert main(["merge", str(run / "adapter"), str(tmp_path / "merged")]) == 0
    printed = capsys.readouterr().out
    assert "onto the weights of the run: 14 are those that nf4 left" in printed
    assert "4 replaced" in printed
    assert main(["merge", str(run / "adapter"), str(tmp_path / "original"), "--onto", "original"]) == 0
    record = runs.read_json(run / "run.json")
    expected = logits(load_finished(run, record, torch.float32))
    found = relative_difference(logits(load(tmp_path / "merged")), expected)
    other = relative_difference(logits(load(tmp_path / "original")), expected)
    print(f"largest relative difference from the run: dequantized {found:.1e}, original {other:.1e}")
    assert found < 1e-5
    assert other > 1e-2
    base = Weights(run.parent / "llava").places.keys()
    assert Weights(tmp_path / "merged").places.keys() == base


def test_an_export_for_vlmevalkit_has_both_adapters_and_the_projector_that_was_trained(run, tmp_path, capsys):
    assert main(["export", str(run / "adapter"), str(tmp_path / "out"), "--format", "xtuner"]) == 0
    assert "LLaVA_XTuner(" in capsys.readouterr().out.splitlines()[-1]
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"llm_adapter", "visual_encoder_adapter", "projector"}
    found, trained = read_projector(tmp_path / "out" / "projector"), read_projector(run)
    assert all(torch.equal(found.tensors[part], trained.tensors[part]) for part in trained.tensors)
