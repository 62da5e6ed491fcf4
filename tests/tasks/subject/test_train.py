"""Runs of a tiny SDXL on real photographs: what they write, that they repeat, and that they survive kill -9."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from moslora import runs
from moslora.errors import ConfigError, MoSLoRAWarning, RunError
from moslora.recipes import configure, load_recipe
from moslora.resume import COMPLETE
from moslora.tasks.subject import loop
from moslora.tasks.subject.config import SubjectTrainConfig, check
from moslora.tasks.subject.train import train
from tests.helpers import ROOT, relative_difference
from tests.tasks.engines import start
from tests.tasks.subject.conftest import settings

MOSLORA = [sys.executable, "-c", "import sys; from moslora.cli import main; sys.exit(main())"]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1"}


def weights(run, part="adapter"):
    return safetensors.torch.load_file(run / part / "adapter_model.safetensors")


def equal(run, other, part="adapter"):
    one, two = weights(run, part), weights(other, part)
    return one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def losses(run):
    return [row["loss"] for row in runs.read_rows(run / "metrics.jsonl")]


def test_a_run_writes_what_is_promised(trained):
    record = runs.read_json(trained / "run.json")
    assert (record["status"], record["task"], record["steps"]) == ("done", "subject", 6)
    assert record["samples"] == {"subject": 5}
    layers = [key for key in weights(trained) if key.endswith("lora_B.weight")]
    assert record["kernels"] == {"unet": {"linear": len(layers)}}, "every adapted layer says how it computed"
    assert set(record["inputs"]["model"]) >= {"unet", "vae", "text_encoder", "text_encoder_2", "scheduler"}
    assert sorted(record["inputs"]["images"]) == [f"0{number}.jpg" for number in range(5)]
    found = sorted(path.name for path in trained.iterdir())
    assert found == ["adapter", "lora", "lora-kohya.safetensors", "metrics.jsonl", "recipe.toml", "run.json"]
    rows = runs.read_rows(trained / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6]
    assert rows[-1].keys() == {"step", "epoch", "loss", "grad_norm", "learning_rate", "seconds"}
    assert rows[-1]["epoch"] == pytest.approx(6 * 4 / 5)


def test_the_written_recipe_is_the_config(trained, sdxl, photographs):
    assert configure(SubjectTrainConfig, load_recipe(str(trained / "recipe.toml"))) == settings(sdxl, photographs)


def test_the_recipe_of_the_paper_has_the_settings_of_section_4_3():
    recipe = load_recipe("subject/sdxl")
    config = configure(SubjectTrainConfig, {"model": "any", "images": "any", "prompt": "any"}, recipe)
    check(config)
    assert (config.method, config.learning_rate, config.batch_size) == ("moslora-orthogonal", 1e-4, 4)
    assert config.max_steps == 500


def test_the_same_settings_give_the_same_bits_and_another_seed_does_not(trained, sdxl, photographs, tmp_path):
    train(settings(sdxl, photographs), tmp_path / "again")
    train(settings(sdxl, photographs, seed=1), tmp_path / "other")
    assert equal(trained, tmp_path / "again")
    assert losses(trained) == losses(tmp_path / "again")
    assert not equal(trained, tmp_path / "other")


@pytest.mark.slow
def test_kill_9_and_the_same_command_again_gives_the_same_bits(sdxl, photographs, tmp_path):
    """With dropout, text encoders and a schedule, and half-written checkpoints in the way."""
    changes = {"train_text_encoders": True, "dropout": 0.1, "lr_scheduler": "cosine", "max_steps": 16}
    config = settings(sdxl, photographs, **changes)
    train(config, tmp_path / "straight")
    recipe = tmp_path / "recipe.toml"
    recipe.write_bytes((tmp_path / "straight" / "recipe.toml").read_bytes())
    out = tmp_path / "run"
    command = [*MOSLORA, "train", "subject", "--recipe", str(recipe), "--out", str(out)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=ENVIRONMENT)
    deadline = time.monotonic() + 300
    while not (out / "checkpoints" / "checkpoint-4" / COMPLETE).exists():
        assert process.poll() is None, process.stderr.read().decode()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert runs.read_json(out / "run.json")["status"] == "running"
    torn = out / "checkpoints" / "checkpoint-15"
    torn.mkdir()
    (torn / "state.json").write_text('{"pairs": [["st')

    record = train(config, out)
    assert record["resumed_from_steps"][0] in range(4, 16, 2)
    for part in ("adapter", "text_encoder_adapter", "text_encoder_2_adapter"):
        assert equal(out, tmp_path / "straight", part)
    assert losses(out) == losses(tmp_path / "straight")
    assert not (out / "checkpoints").exists()


def test_a_resumed_run_of_8_bit_adam_gives_the_same_bits(sdxl, photographs, tmp_path, monkeypatch):
    pytest.importorskip("bitsandbytes")
    # Layers of 4,096 and more numbers have 8-bit states.
    config = settings(sdxl, photographs, optimizer="adamw-8bit", target_modules=("ff.net.0.proj",), rank=64)
    train(config, tmp_path / "straight")
    real = loop.Loop._step

    def interrupted(self, step):
        if step == 5:
            raise KeyboardInterrupt
        return real(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(loop.Loop, "_step", interrupted)
        with pytest.raises(KeyboardInterrupt):
            train(config, tmp_path / "run")
    tensors = safetensors.torch.load_file(tmp_path / "run" / "checkpoints" / "checkpoint-4" / "state.safetensors")
    assert any(tensor.dtype == torch.uint8 and tensor.numel() >= 4096 for tensor in tensors.values())
    assert train(config, tmp_path / "run")["resumed_from_steps"] == [4]
    assert equal(tmp_path / "run", tmp_path / "straight")


def test_micro_batches_and_gradient_checkpointing_change_nothing_but_rounding(trained, sdxl, photographs, tmp_path):
    train(settings(sdxl, photographs, micro_batch_size=1, gradient_checkpointing=True), tmp_path / "run")
    assert losses(tmp_path / "run") == pytest.approx(losses(trained), rel=1e-5)
    one, two = weights(trained), weights(tmp_path / "run")
    # Adam divides by the size of a gradient, so rounding shows where gradients are tiny.
    assert max(relative_difference(one[key], two[key]) for key in one) < 2e-2


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ddp", "fsdp2"])
@pytest.mark.parametrize(("first", "second"), [(2, 2), (2, 1), (1, 2)])
def test_any_number_of_processes_trains_and_goes_on_with_what_one_trains(trained, tmp_path, engine, first, second):
    words = ["train", "subject", "--recipe", str(trained / "recipe.toml"), "--out", str(tmp_path / "run")]
    start(engine, first, words, stop=4)
    start(engine, second, words)
    record = runs.read_json(tmp_path / "run" / "run.json")
    assert (record["resumed_from_steps"], record["world"]["processes"]) == ([4], second)
    assert record["world"]["engine"] == (engine if engine == "fsdp2" or second > 1 else "none")
    assert losses(tmp_path / "run") == pytest.approx(losses(trained), rel=1e-5)
    one, two = weights(trained), weights(tmp_path / "run")
    assert max(relative_difference(one[key], two[key]) for key in one) < 2e-2  # as with other micro-batches


@pytest.mark.slow
def test_processes_with_unequal_work_share_their_weights_and_draw_together(sdxl, tmp_path):
    """Under FSDP2, where one has more sizes of pictures than the other, text encoders learn and pictures are drawn."""
    images = tmp_path / "images"
    images.mkdir()
    for number, size in enumerate([(64, 32), (32, 64), (48, 48), (64, 32), (64, 32)]):
        Image.effect_noise(size, 80).convert("RGB").save(images / f"{number}.png")
    changes = {"train_text_encoders": True, "buckets": True, "batch_size": 4, "max_steps": 4}
    drawn = {"validation_prompts": ("a dog",), "validation_steps": 4, "validation_inference_steps": 2}
    train(settings(sdxl, images, **changes, **drawn), tmp_path / "one")
    start(
        "fsdp2",
        2,
        ["train", "subject", "--recipe", str(tmp_path / "one" / "recipe.toml"), "--out", str(tmp_path / "two")],
    )
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)
    one, two = (
        np.asarray(Image.open(tmp_path / name / "validation" / "000004-0.png")).astype(int) for name in ("one", "two")
    )
    assert abs(one - two).max() <= 2


def test_only_the_adapters_learn_and_the_prior_is_preserved_by_pictures_of_the_base(sdxl, photographs, tmp_path):
    changes = {"class_prompt": "a photo of a dog", "class_count": 3, "max_steps": 2, "prior_weight": 0.5}
    config = settings(sdxl, photographs, **changes)
    record = train(config, tmp_path / "run")
    assert record["samples"] == {"subject": 5, "class": 3}
    assert sorted(record["class_images"]) == [f"class-000{number}.png" for number in range(3)]
    (row,) = runs.read_rows(tmp_path / "run" / "metrics.jsonl")
    assert row["loss"] == pytest.approx(row["subject_loss"] + 0.5 * row["class_loss"])
    own = tmp_path / "class"
    own.mkdir()
    Image.new("RGB", (40, 40), "green").save(own / "mine.jpg")
    shared = dataclasses.replace(config, class_images=str(own))
    record = train(shared, tmp_path / "own")
    assert sorted(record["class_images"]) == ["class-0000.png", "class-0001.png", "mine.jpg"]
    drawn = (tmp_path / "run" / "class-images" / "class-0001.png").read_bytes()
    assert drawn == (own / "class-0001.png").read_bytes(), "the seed decides, not the folder"


def test_validation_pictures_begin_with_the_base_and_change(sdxl, photographs, tmp_path):
    changes = {"validation_prompts": ("a dog", "a cat"), "validation_steps": 3, "validation_inference_steps": 2}
    train(settings(sdxl, photographs, **changes), tmp_path / "run")
    folder = tmp_path / "run" / "validation"
    steps = [f"{step:06d}-{number}.png" for step in (0, 3, 6) for number in (0, 1)]
    assert sorted(path.name for path in folder.iterdir()) == [*steps, "strip.png"]
    start, end = (np.asarray(Image.open(folder / name)).astype(int) for name in ("000000-0.png", "000006-0.png"))
    assert np.abs(start - end).max() > 0


def test_drawing_validation_pictures_does_not_change_what_is_learned(trained, sdxl, photographs, tmp_path):
    changes = {"validation_prompts": ("a dog",), "validation_steps": 2, "validation_inference_steps": 1}
    train(settings(sdxl, photographs, **changes), tmp_path / "run")
    assert equal(trained, tmp_path / "run")


METHODS = ("lora", "moslora-orthogonal", "moslora-gradient", "ts-mixing", "lokr", "adalora", "dora")


@pytest.mark.parametrize("method", METHODS)
def test_methods_by_their_names(method, sdxl, photographs, tmp_path):
    config = settings(sdxl, photographs, method=method, max_steps=2)
    if method == "dora":
        with pytest.warns(MoSLoRAWarning, match=r"There is no .*lora: "):
            record = train(config, tmp_path / "run")
    else:
        record = train(config, tmp_path / "run")
    assert record["parameters"]["trainable"] > 0
    assert (tmp_path / "run" / "lora").exists() == (method not in ("lokr", "adalora", "dora"))
    moved = [value for key, value in weights(tmp_path / "run").items() if "lora_B" in key or "lokr" in key]
    assert any(value.abs().max() > 0 for value in moved)


def test_methods_share_noise_order_and_start(sdxl, photographs, tmp_path):
    """With a learning rate of nearly nothing, LoRA and MoSLoRA have the losses of the same pictures and noise."""
    for method in ("lora", "moslora"):
        train(settings(sdxl, photographs, method=method, learning_rate=1e-30, max_steps=4), tmp_path / method)
    assert losses(tmp_path / "lora") == losses(tmp_path / "moslora")
    lora, moslora = weights(tmp_path / "lora"), weights(tmp_path / "moslora")
    for key, value in lora.items():
        # A is the same to the bit; what four steps add to B = 0 has the size of the learning rate.
        torch.testing.assert_close(value, moslora[key.replace("lora_A.weight", "lora_A.raw")], rtol=0, atol=1e-27)


def test_any_method_of_peft_comes_from_a_file(sdxl, photographs, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"peft_type": "LORA", "r": 2, "target_modules": ["to_q"], "use_rslora": True}))
    record = train(settings(sdxl, photographs, method=f"file:{path}", max_steps=2), tmp_path / "run")
    assert record["inputs"]["method"] == runs.file_sha256(path)
    assert {len(value) for key, value in weights(tmp_path / "run").items() if "lora_A" in key} == {2}


def test_a_loss_that_is_no_number_names_step_and_picture(sdxl, photographs, tmp_path, monkeypatch):
    objective, step = loop.Objective.forward, loop.Loop._step
    steps = []

    def poisoned(self, **batch):
        out = objective(self, **batch)
        if len(steps) == 2:
            out.losses = out.losses * torch.tensor([1.0] * (len(out.losses) - 1) + [float("nan")])
        return out

    def counted(self, number):
        steps.append(number)
        return step(self, number)

    monkeypatch.setattr(loop.Objective, "forward", poisoned)
    monkeypatch.setattr(loop.Loop, "_step", counted)
    with pytest.raises(RunError, match=r"not a finite number at step 2, for 0\d\.jpg"):
        train(settings(sdxl, photographs), tmp_path / "run")
    assert runs.read_json(tmp_path / "run" / "run.json")["status"] == "failed"


def test_bfloat16_learns_and_keeps_float32_adapters(sdxl, photographs, tmp_path, trained):
    train(settings(sdxl, photographs, dtype="bfloat16", vae=str(sdxl / "vae")), tmp_path / "run")
    assert {value.dtype for value in weights(tmp_path / "run").values()} == {torch.float32}
    assert losses(tmp_path / "run") == pytest.approx(losses(trained), rel=0.05)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0, "images": ""}, "rank is 0.*\n.*images is empty"),
        ({"prompt": ""}, "prompt is empty"),
        ({"method": "mosl"}, "Did you mean 'moslora'"),
        ({"method": "full"}, "only adapters are trained here"),
        ({"target_modules": ("q_porj",)}, "q_porj"),
        ({"model": "/nowhere"}, "/nowhere"),
        ({"model": str(ROOT)}, "model_index.json"),
        ({"class_images": "x"}, "class_images needs a class_prompt"),
        ({"batch_size": 6}, "not a multiple of micro_batch_size"),
        ({"dtype": "float16"}, "needs a GPU"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused(changes, message, sdxl, photographs, tmp_path):
    if changes.get("dtype") == "float16" and torch.cuda.is_available():
        pytest.skip("a GPU is there")
    with pytest.raises(ConfigError, match=message):
        train(dataclasses.replace(settings(sdxl, photographs), **changes), tmp_path / "run")
