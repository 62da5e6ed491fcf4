"""One image, whoever draws it: the run itself, the run reloaded, and stock diffusers with the exported files."""

import json

import numpy as np
import pytest
import safetensors.torch
import torch
from peft import PeftModel

import moslora
from moslora.checkpoint import export_adapter
from moslora.checkpoint.files import read_safetensors
from moslora.tasks.subject import train as training
from moslora.tasks.subject.attach import load_adapters
from moslora.tasks.subject.pipeline import load_pipeline
from tests.checkpoint.adapters import expected_updates
from tests.helpers import run_stock_peft
from tests.tasks.subject.conftest import settings

PROMPT, STEPS, LIMIT = "a sks dog on the beach", 10, 1e-4

STOCK_DIFFUSERS = """
import torch
import numpy as np
from diffusers import DiffusionPipeline
base, source, target = args
pipeline = DiffusionPipeline.from_pretrained(base, safety_checker=None)
pipeline.set_progress_bar_config(disable=True)
pipeline.load_lora_weights(source)
generator = torch.Generator().manual_seed(0)
picture = pipeline("a sks dog on the beach", num_inference_steps=10, generator=generator, output_type="np").images
np.save(target, picture)
"""


def picture(pipeline):
    """The image in [0, 1], before it is rounded to bytes."""
    generator = torch.Generator().manual_seed(0)
    return pipeline(PROMPT, num_inference_steps=STEPS, generator=generator, output_type="np").images


@pytest.fixture(scope="module", params=["sdxl", "sd15"])
def drawn(request, photographs, tmp_path_factory):
    """The run folder and base, the image that the trained networks draw before they are gone, and that of the base."""
    base = request.getfixturevalue(request.param)
    seen = {}

    def spy(adapted, folder):
        seen.update({name: expected_updates(model) for name, model in adapted.items()})
        pipeline = load_pipeline(base, torch.float32)
        seen["base"] = picture(pipeline)
        for name, model in adapted.items():
            setattr(pipeline, name, model.get_base_model().eval())
        seen["run"] = picture(pipeline)
        real(adapted, folder)

    real, training.save_adapters = training.save_adapters, spy
    folder = tmp_path_factory.mktemp("same") / "run"
    try:
        changes = {"train_text_encoders": True, "text_learning_rate": 1e-2, "learning_rate": 3e-2, "max_steps": 12}
        training.train(
            settings(base, photographs, alpha=8, target_modules=("to_q", "to_v", "conv1"), **changes), folder
        )
    finally:
        training.save_adapters = real
    return folder, base, seen


def test_the_reloaded_run_draws_the_image_of_the_run(drawn):
    folder, base, seen = drawn
    assert np.abs(seen["run"] - seen["base"]).max() > 100 * LIMIT, "the adapter does nothing, so nothing was tested"
    pipeline = load_pipeline(base, torch.float32)
    assert set(load_adapters(pipeline, folder)) == {name for name in seen if "unet" in name or "text" in name}
    assert np.abs(picture(pipeline) - seen["run"]).max() < LIMIT


@pytest.mark.parametrize("source", ["lora", "lora-kohya.safetensors"])
def test_stock_diffusers_draws_the_image_of_the_run_from_the_exported_files(drawn, source, tmp_path):
    folder, base, seen = drawn
    run_stock_peft(STOCK_DIFFUSERS, base, folder / source, tmp_path / "picture.npy")
    assert np.abs(np.load(tmp_path / "picture.npy") - seen["run"]).max() < LIMIT


def test_without_the_mixer_the_image_is_another(drawn):
    """What users of the authors' files saw: A and B alone, as if M were the identity."""
    folder, base, seen = drawn
    pipeline = load_pipeline(base, torch.float32)
    for model in load_adapters(pipeline, folder).values():
        for name, parameter in model.named_parameters():
            if name.endswith("mixer"):
                parameter.data = torch.eye(len(parameter))
    assert np.abs(picture(pipeline) - seen["run"]).max() > 100 * LIMIT


def test_an_independent_reader_of_the_kohya_file_finds_delta_W_of_every_part(drawn):
    folder, _, seen = drawn
    tensors = safetensors.torch.load_file(folder / "lora-kohya.safetensors")
    starts = {"unet": "lora_unet_", "text_encoder": "lora_te1_text_model_", "text_encoder_2": "lora_te2_text_model_"}
    if "text_encoder_2" not in seen:
        starts["text_encoder"] = "lora_te_text_model_"
    checked = 0
    for part, start in starts.items():
        for name, expected in seen.get(part, {}).items():
            stem = start + name.removeprefix("text_model.").replace(".", "_")
            down, up = (tensors[f"{stem}.lora_{each}.weight"].double() for each in ("down", "up"))
            found = tensors[f"{stem}.alpha"].item() / len(down) * up @ down
            assert (found - expected).norm() <= 1e-6 * expected.norm(), stem
            checked += 1
    convolutions = [key for key, tensor in tensors.items() if key.endswith("lora_down.weight") and tensor.ndim == 4]
    assert convolutions, "conv1 was trained too"
    assert checked + len(convolutions) == len([key for key in tensors if key.endswith("alpha")])


def test_the_run_folder_as_a_whole_is_exported(drawn, tmp_path):
    folder, _, _ = drawn
    report = export_adapter(folder, tmp_path / "again", format="diffusers")
    assert report.largest[1] < 1e-6
    (again, settings), (saved, expected) = (
        read_safetensors(place / "pytorch_lora_weights.safetensors") for place in (tmp_path / "again", folder / "lora")
    )  # not the bytes: safetensors writes its header in any order
    assert settings == expected
    assert again.keys() == saved.keys()
    assert all(torch.equal(again[key], saved[key]) for key in saved)


def test_the_saved_adapter_is_one_of_peft_with_its_mixer(drawn):
    folder, base, _ = drawn
    config = json.loads((folder / "adapter" / "adapter_config.json").read_text())
    assert (config["peft_type"], config["mixer"]) == ("MOSLORA", "learnable")
    assert moslora.MosLoraConfig(r=4).peft_type == "MOSLORA"
    model = PeftModel.from_pretrained(load_pipeline(base, torch.float32).unet, str(folder / "adapter"))
    assert any(name.endswith("lora_A.default.mixer") for name, _ in model.named_parameters())
