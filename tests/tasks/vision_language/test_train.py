"""Training runs of a tiny LLaVA on real pictures: what they write, that they repeat, and that they survive kill -9."""

import dataclasses
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import peft
import pytest
import safetensors.torch
import torch
import transformers

from moslora import runs
from moslora.errors import ConfigError, DataError, RunError
from moslora.recipes import configure, load_recipe
from moslora.resume import COMPLETE
from moslora.tasks.vision_language.config import VisionLanguageTrainConfig
from moslora.tasks.vision_language.model import load_finished
from moslora.tasks.vision_language.train import load_adapted, train
from tests.helpers import adapter_weights, command_line, relative_difference, run_stock_peft

from .conftest import IMAGE_SIZE, IMAGE_TOKENS

SMALL = {
    "rank": 4,
    "alpha": 8,
    "vision_rank": 2,
    "vision_alpha": 1,
    "batch_size": 8,
    "micro_batch_size": 4,
    "max_steps": 6,
    "learning_rate": 3e-3,
    "warmup_steps": 1,
    "logging_steps": 1,
    "save_steps": 2,
    "max_tokens": 128,
}


@pytest.fixture(scope="module")
def config(tiny_llava, shapes):
    data = (str(shapes / "train.json"),)
    return VisionLanguageTrainConfig(model=str(tiny_llava), data=data, images=str(shapes / "images"), **SMALL)


@pytest.fixture(scope="module")
def finished(config, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "moslora"
    train(config, folder)
    return folder


def _weights(folder: Path) -> dict[str, torch.Tensor]:
    return adapter_weights(folder) | safetensors.torch.load_file(folder / "projector.safetensors")


def _logits(model: torch.nn.Module) -> torch.Tensor:
    draw = torch.Generator().manual_seed(0)
    image_token = model.config.image_token_id
    tokens = torch.cat([torch.full((2, IMAGE_TOKENS), image_token), torch.randint(9, 200, (2, 12), generator=draw)], 1)
    pictures = torch.randn(2, 3, IMAGE_SIZE, IMAGE_SIZE, generator=draw)
    with torch.no_grad():
        return model.eval()(input_ids=tokens, pixel_values=pictures).logits


def test_a_run_records_parts_samples_and_data(finished, config):
    record = runs.read_json(finished / "run.json")
    assert record["status"] == "done"
    assert record["task"] == "vision-language"
    assert record["samples"] == {"train": 72, "with_image": 48, "validation": 0, "dropped": 0, "skipped": 0}
    facts = runs.read_json(finished / "data.json")
    assert (facts["rows"], facts["with_image"], facts["text_only"], facts["images"]) == (72, 48, 24, 48)
    assert configure(VisionLanguageTrainConfig, load_recipe(str(finished / "recipe.toml"))) == config
    assert not (finished / "checkpoints").exists()


def test_both_parts_have_their_own_rank_and_scale_and_all_of_them_learn(finished, config):
    adapted = load_finished(finished, runs.read_json(finished / "run.json"), torch.float32)
    ranks, scales, moved = {}, {}, {}
    for name, module in adapted.named_modules():
        if hasattr(module, "lora_B"):
            part = "tower" if "vision_tower" in name else "language"
            ranks.setdefault(part, set()).add(module.r["default"])
            scales.setdefault(part, set()).add(module.scaling["default"])
            moved.setdefault(part, []).append(module.lora_B["default"].weight.abs().max().item() > 0)
    assert ranks == {"tower": {2}, "language": {4}}
    assert scales == {"tower": {0.5}, "language": {2.0}}
    # Two of the three blocks of the tower: the last one comes after what the projector is given.
    assert {part: (len(each), all(each)) for part, each in moved.items()} == {
        "tower": (12, True),
        "language": (14, True),
    }


def test_stock_peft_computes_the_same_from_the_plain_lora(finished, config, tiny_llava, tmp_path):
    ours = _logits(load_finished(finished, runs.read_json(finished / "run.json"), torch.float32))
    base = _logits(transformers.AutoModelForImageTextToText.from_pretrained(tiny_llava))
    assert relative_difference(ours, base) > 1e-3
    run_stock_peft(
        "import torch, peft, transformers\n"
        "base = transformers.AutoModelForImageTextToText.from_pretrained(args[0])\n"
        "model = peft.PeftModel.from_pretrained(base, args[1]).eval()\n"
        "draw = torch.Generator().manual_seed(0)\n"
        "image = torch.full((2, int(args[3])), model.config.image_token_id)\n"
        "tokens = torch.cat([image, torch.randint(9, 200, (2, 12), generator=draw)], 1)\n"
        "pictures = torch.randn(2, 3, int(args[4]), int(args[4]), generator=draw)\n"
        "with torch.no_grad(): torch.save(model(input_ids=tokens, pixel_values=pictures).logits, args[2])",
        tiny_llava,
        finished / "lora",
        tmp_path / "logits.pt",
        IMAGE_TOKENS,
        IMAGE_SIZE,
    )
    assert relative_difference(torch.load(tmp_path / "logits.pt"), ours) < 1e-6


@pytest.mark.slow
def test_kill_9_and_the_same_command_again_gives_the_same_bits(finished, config, tmp_path, moslora_command):
    out = tmp_path / "run"
    command = [*moslora_command, *command_line("vision-language", config, out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
    deadline = time.monotonic() + 300
    while not (out / "checkpoints" / "checkpoint-2" / COMPLETE).exists():
        assert process.poll() is None, process.stderr.read().decode()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert runs.read_json(out / "run.json")["status"] == "running"
    torn = out / "checkpoints" / "checkpoint-5"  # as if the kill had hit while the next one was being written
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 5')

    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    record = runs.read_json(out / "run.json")
    assert (record["status"], record["resumed_from_steps"][0] in (2, 4)) == ("done", True)
    resumed, straight = _weights(out), _weights(finished)
    assert resumed.keys() == straight.keys()
    assert all(torch.equal(resumed[key], straight[key]) for key in straight)
    losses = [[row["loss"] for row in runs.read_rows(folder / "metrics.jsonl")] for folder in (out, finished)]
    assert losses[0] == losses[1]


def _torchrun(config: VisionLanguageTrainConfig, out: Path, *words: str) -> None:
    """The command in two processes on the CPU."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--master_port", "29531"]
    command += ["--no-python", sys.executable, "-c", "import sys; from moslora.cli import main; sys.exit(main())"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *command_line("vision-language", config, out), *words],
        capture_output=True,
        text=True,
        env=environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_train_what_one_does(config, tmp_path):
    """Same batches of 8, once in two passes, once in two processes; with a checkpoint from which both go on."""
    settings = dataclasses.replace(config, dropout=0.0)
    train(settings, tmp_path / "one")
    _torchrun(settings, tmp_path / "two", "--dropout", "0")
    one, two = _weights(tmp_path / "one"), _weights(tmp_path / "two")
    assert one.keys() == two.keys()
    assert max(relative_difference(two[key], one[key]) for key in one) < 1e-3
    losses = [[row["loss"] for row in runs.read_rows(tmp_path / f / "metrics.jsonl")] for f in ("one", "two")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_the_batch_may_be_split_differently_without_changing_the_gradient(config, tmp_path):
    norms = []
    for micro in (8, 2):
        settings = dataclasses.replace(config, micro_batch_size=micro, dropout=0.0, max_steps=2)
        train(settings, tmp_path / str(micro))
        norms.append([row["grad_norm"] for row in runs.read_rows(tmp_path / str(micro) / "metrics.jsonl")])
    assert norms[0] == pytest.approx(norms[1], rel=1e-4)


def test_it_learns_to_answer(config, tmp_path):
    # All weights: the head of a random model cannot be led by an adapter before it.
    changes = {"method": "full", "max_steps": 20, "learning_rate": 1e-2, "validation_size": 8, "batch_size": 4}
    settings = dataclasses.replace(config, **changes)
    train(settings, tmp_path / "run")
    rows = runs.read_rows(tmp_path / "run" / "metrics.jsonl")
    losses = [row["loss"] for row in rows if "loss" in row]
    assert losses[-1] < losses[0] * 0.6
    validation = [row["validation_loss"] for row in rows if "validation_loss" in row]
    assert validation[-1] < validation[0] * 0.7


def test_stage_1_trains_the_projector_alone_and_stage_2_begins_with_it(config, tiny_llava, tmp_path):
    stage_1 = dataclasses.replace(config, train="projector", max_steps=2)
    record = train(stage_1, tmp_path / "stage1")
    fresh = transformers.AutoModelForImageTextToText.from_pretrained(tiny_llava)
    projector = fresh.model.multi_modal_projector
    assert record["samples"]["train"] == 48  # those with an image
    assert record["parameters"]["trainable"] == sum(each.numel() for each in projector.parameters())
    saved = safetensors.torch.load_file(tmp_path / "stage1" / "projector.safetensors")
    assert not [name for name in ("adapter", "lora", "model") if (tmp_path / "stage1" / name).exists()]
    before = {f"multi_modal_projector.{name}": value for name, value in projector.state_dict().items()}
    assert saved.keys() == before.keys()
    assert not any(torch.equal(saved[name], before[name]) for name in saved)
    again = load_finished(tmp_path / "stage1", record, torch.float32).state_dict()
    for name, value in fresh.state_dict().items():
        expected = saved[name.removeprefix("model.")] if "multi_modal_projector" in name else value
        assert torch.equal(again[name], expected), name

    stage_2 = dataclasses.replace(config, train="adapter", projector=str(tmp_path / "stage1"), max_steps=1)
    second = train(stage_2, tmp_path / "stage2")
    kept = safetensors.torch.load_file(tmp_path / "stage2" / "projector.safetensors")
    assert all(torch.equal(kept[name], saved[name]) for name in saved)
    assert second["inputs"]["projector"] == runs.file_sha256(tmp_path / "stage1" / "projector.safetensors")
    loaded = load_finished(tmp_path / "stage2", second, torch.float32)
    assert isinstance(loaded, peft.PeftModel)
    found = loaded.get_base_model().model.multi_modal_projector.state_dict()
    assert all(torch.equal(found[name.rpartition("projector.")[2]], value) for name, value in saved.items())


def test_full_fine_tuning_saves_a_model_that_loads_with_its_processor(config, tmp_path):
    record = train(dataclasses.replace(config, method="full", max_steps=1), tmp_path / "full")
    assert record["parameters"]["trainable"] == record["parameters"]["total"]
    folder = tmp_path / "full" / "model"
    transformers.AutoProcessor.from_pretrained(folder, backend="pil")
    assert torch.isfinite(_logits(load_finished(tmp_path / "full", record, torch.float32))).all()
    assert transformers.AutoModelForImageTextToText.from_pretrained(folder).config.model_type == "llava"


def test_gradient_checkpointing_changes_no_loss(finished, config, tmp_path):
    train(dataclasses.replace(config, gradient_checkpointing=True), tmp_path / "run")
    losses = [[row["loss"] for row in runs.read_rows(f / "metrics.jsonl")] for f in (finished, tmp_path / "run")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_a_tower_without_mixer_or_without_adapter(config):
    plain = load_adapted(dataclasses.replace(config, vision_mixer=False))
    names = [name for name, _ in plain.named_parameters() if name.endswith(".mixer")]
    assert names
    assert not [name for name in names if "vision_tower" in name]
    assert [name for name, _ in plain.named_parameters() if "vision_tower" in name and "lora_B" in name]
    untouched = load_adapted(dataclasses.replace(config, vision_target_modules=("none",)))
    assert not [name for name, _ in untouched.named_parameters() if "vision_tower" in name and "lora_" in name]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0, "vision_rank": 0}, "rank is 0.*\n.*vision_rank is 0"),
        ({"data": ()}, "there is no training data"),
        ({"images": ""}, "give the folder of their paths with --images"),
        ({"method": "full", "quantize": "nf4"}, "method full cannot train weights"),
        ({"method": "full", "train": "adapter"}, "method full trains every part"),
        ({"method": "adalora"}, "'adalora' has no alpha_pattern, rank_pattern: it knows none"),
        ({"target_modules": ("q_porj",)}, "language_model has none of the layers q_porj; it has .*q_proj"),
        ({"vision_target_modules": ("o_proj",)}, "vision_tower has none of the layers o_proj; it has .*out_proj"),
        ({"max_tokens": IMAGE_TOKENS}, f"max_tokens is {IMAGE_TOKENS}, but an image takes {IMAGE_TOKENS} tokens"),
        ({"projector": "/nowhere"}, "There is no projector at '/nowhere'"),
        ({"model": "/nowhere"}, "Cannot load a model config from '/nowhere'"),
        ({"deepspeed": "zero9"}, "no DeepSpeed config 'zero9': choose zero2"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_before_training(config, tmp_path, changes, message):
    with pytest.raises(ConfigError, match=message):
        train(dataclasses.replace(config, **changes), tmp_path / "run")


def test_a_model_without_a_vision_part_is_refused(config, tmp_path):
    transformers.LlamaConfig().save_pretrained(tmp_path / "llama")
    with pytest.raises(ConfigError, match="llama model without a vision part"):
        train(dataclasses.replace(config, model=str(tmp_path / "llama")), tmp_path / "run")


def test_a_missing_image_stops_the_run_before_it_is_begun(config, shapes, tmp_path):
    with pytest.raises(DataError, match=r"48 of 72 rows cannot be used:\n  row 0 of .*there is no such file"):
        train(dataclasses.replace(config, images=str(tmp_path)), tmp_path / "run")
    record = train(dataclasses.replace(config, images=str(tmp_path), skip_broken=True, max_steps=1), tmp_path / "run")
    assert record["samples"]["train"] == 24
    assert record["samples"]["skipped"] == 48
    with pytest.raises(RunError, match="is finished"):
        train(dataclasses.replace(config, images=str(tmp_path), skip_broken=True, max_steps=1), tmp_path / "run")
