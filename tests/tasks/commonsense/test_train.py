"""Training runs of a tiny Llama: what they write, that they repeat, and that they survive kill -9."""

import dataclasses
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import peft
import pytest
import torch
import transformers

from moslora import runs
from moslora.errors import ConfigError, DataError, MoSLoRAWarning, RunError
from moslora.recipes import configure, load_recipe
from moslora.resume import COMPLETE
from moslora.tasks.commonsense.config import CommonsenseTrainConfig
from moslora.tasks.commonsense.data import read_items
from moslora.tasks.commonsense.model import load_tokenizer
from moslora.tasks.commonsense.samples import prepare
from moslora.tasks.commonsense.train import train
from tests.helpers import adapter_weights, command_line, relative_difference, run_stock_peft


@pytest.fixture(scope="module")
def config(small_config):
    return small_config


@pytest.fixture(scope="module")
def finished(small_run):
    return small_run


def test_a_run_leaves_its_record_its_adapter_and_the_equal_plain_lora(finished, config):
    record = runs.read_json(finished / "run.json")
    assert record["status"] == "done"
    assert record["config"]["rank"] == 4
    assert record["steps"] == 12
    assert set(record["inputs"]["model"]["files"]) >= {"config.json", "model.safetensors"}
    assert record["inputs"]["data"] == {config.data[0]: runs.file_sha256(Path(config.data[0]))}
    assert record["peak_memory"]["bytes"] > 2**20
    assert record["kernels"] == {"linear": 10}
    assert sorted(path.name for path in finished.iterdir()) == [
        "adapter",
        "data.json",
        "lora",
        "metrics.jsonl",
        "recipe.toml",
        "run.json",
    ]
    rows = runs.read_rows(finished / "metrics.jsonl")
    assert [row["step"] for row in rows] == [2, 4, 6, 8, 10, 12]
    assert rows[-1]["loss"] < rows[0]["loss"]
    assert rows[-1]["loss"] == record["final_loss"]


def test_the_written_recipe_is_the_config(finished, config):
    assert configure(CommonsenseTrainConfig, load_recipe(str(finished / "recipe.toml"))) == config


def test_stock_peft_computes_the_same_from_the_plain_lora(finished, config, tiny_model, tmp_path):
    tokens = torch.randint(2, 300, (2, 16), generator=torch.Generator().manual_seed(0))
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    with torch.no_grad():
        ours = peft.PeftModel.from_pretrained(base, finished / "adapter").eval()(tokens).logits
    torch.save(tokens, tmp_path / "tokens.pt")
    run_stock_peft(
        "import torch, peft, transformers\n"
        "model = peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(args[0]), args[1])\n"
        "with torch.no_grad(): torch.save(model.eval()(torch.load(args[2])).logits, args[3])",
        tiny_model,
        finished / "lora",
        tmp_path / "tokens.pt",
        tmp_path / "logits.pt",
    )
    assert relative_difference(torch.load(tmp_path / "logits.pt"), ours) < 1e-6


def test_the_same_command_twice_gives_the_same_bits_and_another_seed_does_not(finished, config, tmp_path):
    train(config, tmp_path / "again")
    train(dataclasses.replace(config, seed=1), tmp_path / "other")
    first, again, other = (adapter_weights(folder) for folder in (finished, tmp_path / "again", tmp_path / "other"))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not any(torch.equal(first[key], other[key]) for key in first)


def test_kill_9_and_the_same_command_again_gives_the_same_bits(finished, config, tmp_path, moslora_command):
    out = tmp_path / "run"
    command = [*moslora_command, *command_line("commonsense", config, out)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "checkpoint-4" / COMPLETE).exists():
        assert process.poll() is None, process.stderr.read().decode()[-2000:]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert runs.read_json(out / "run.json")["status"] == "running"
    # The kill may have hit while the next checkpoint was being written; make sure that one such folder is there.
    torn = out / "checkpoints" / "checkpoint-11"
    torn.mkdir()
    (torn / "trainer_state.json").write_text('{"global_step": 11')

    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    record = runs.read_json(out / "run.json")
    assert record["status"] == "done"
    assert record["resumed_from_steps"][0] in (4, 8)
    resumed, straight = adapter_weights(out), adapter_weights(finished)
    assert all(torch.equal(resumed[key], straight[key]) for key in straight)
    losses = [[row.get("loss") for row in runs.read_rows(folder / "metrics.jsonl")] for folder in (out, finished)]
    assert losses[0] == losses[1]


def test_a_tokenizer_is_read_once_and_again_when_its_files_have_changed(tiny_model, tmp_path):
    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    first = load_tokenizer(str(folder))
    assert load_tokenizer(str(folder)) is first
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    (folder / "tokenizer_config.json").write_text(json.dumps(settings | {"model_max_length": 77}))
    assert load_tokenizer(str(folder)).model_max_length == 77


def test_the_best_checkpoint_is_kept_when_asked(config, tiny_model, tmp_path):
    # The first steps of a learning rate that grows this high make things worse.
    growing = {"learning_rate": 3.0, "warmup_steps": 12, "max_steps": 4, "dropout": 0.0}
    settings = dataclasses.replace(config, validation_size=8, keep_best=True, save_steps=2, **growing)
    record = train(settings, tmp_path / "run")
    rows = [row for row in runs.read_rows(tmp_path / "run" / "metrics.jsonl") if "validation_loss" in row]
    best = min(rows, key=lambda row: row["validation_loss"])
    assert best["step"] < record["steps"]

    tokenizer = load_tokenizer(str(tiny_model))
    seed = runs.stream_seed(config.seed, "data")
    items = read_items(config.data[0])
    split = prepare(items, tokenizer, max_tokens=64, train_on_inputs=True, validation_size=8, seed=seed)
    collate = transformers.DataCollatorForSeq2Seq(tokenizer)
    batches = [collate([split.validation[number] for number in group]) for group in (range(4), range(4, 8))]
    base = transformers.AutoModelForCausalLM.from_pretrained(tiny_model)
    kept = peft.PeftModel.from_pretrained(base, tmp_path / "run" / "adapter").eval()
    with torch.no_grad():
        loss = sum(kept(**batch).loss.item() for batch in batches) / len(batches)
    assert loss == pytest.approx(best["validation_loss"], rel=1e-5)


def test_a_finished_run_is_never_overwritten(finished, config):
    before = (finished / "run.json").read_bytes()
    with pytest.raises(RunError, match="is finished"):
        train(config, finished)
    assert (finished / "run.json").read_bytes() == before


def test_an_unfinished_run_is_taken_up_only_with_its_own_settings(config, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(RunError, match="The loss is"):
        train(dataclasses.replace(config, learning_rate=1e30, max_grad_norm=0.0), out)
    record = runs.read_json(out / "run.json")
    assert record["status"] == "failed"
    assert "The loss is" in record["error"]
    with pytest.raises(RunError, match=r"config\.learning_rate: 1e\+30 in the folder, 0\.003 now"):
        train(config, out)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rank": 0, "dropout": 1.5}, "rank is 0.*\n.*dropout is 1.5"),
        ({"train_fraction": 0.0}, "train_fraction is 0.0: it must be above 0 and at most 1"),
        ({"train_fraction": 12.5}, r"train_fraction is 12.5"),
        ({"drop_overlap": True}, "drop_overlap needs the tests"),
        ({"prompt": "chat"}, "no chat template"),
        ({"batch_size": 6}, "not a multiple of micro_batch_size"),
        ({"method": "mosl"}, "Did you mean 'moslora'"),
        ({"method": "ts-mixing", "rank": 3}, "even"),
        ({"target_modules": ("q_porj",)}, "q_porj"),
        ({"model": "/nowhere"}, "/nowhere"),
        ({"dtype": "float16"}, "needs a GPU"),
        ({"method": "lora", "kernel": "fused"}, "PEFT's own code"),
    ],
)
def test_a_setting_that_cannot_be_used_is_refused_before_training(config, tmp_path, changes, message):
    if changes.get("dtype") == "float16" and torch.cuda.is_available():
        pytest.skip("a GPU is there")
    with pytest.raises(ConfigError, match=message):
        train(dataclasses.replace(config, **changes), tmp_path / "run")


def test_a_run_records_what_its_data_holds_and_what_was_left_out(config, questions, tmp_path):
    items = read_items(config.data[0])
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy" / "test.json").write_text(json.dumps(items[:3]))
    instructions = [item["instruction"] for item in items]
    given_away = sum(instruction in instructions[:3] for instruction in instructions)
    settings = dataclasses.replace(
        config, overlap_with=str(tmp_path), drop_overlap=True, train_fraction=0.25, validation_size=4, max_steps=1
    )
    record = train(settings, tmp_path / "run")
    left = len(items) - given_away - 4
    assert record["samples"] == {
        "train": round(0.25 * left),
        "validation": 4,
        "dropped": 0,
        "overlap_dropped": given_away,
    }
    assert record["config"]["train_fraction"] == 0.25
    facts = runs.read_json(tmp_path / "run" / "data.json")
    assert facts["sources"] == [
        {"source": config.data[0], "samples": len(items), "sha256": record["inputs"]["data"][config.data[0]]}
    ]
    assert facts["overlap"] == [{"benchmark": "toy", "questions": 3, "same": 3, "reordered": 0, "samples": given_away}]
    with pytest.warns(MoSLoRAWarning, match=f"{given_away} of 120 training samples ask a question of the tests"):
        train(dataclasses.replace(settings, drop_overlap=False), tmp_path / "kept")


def test_missing_data_is_refused_before_training(config, tmp_path):
    with pytest.raises(DataError, match="no-such-file"):
        train(dataclasses.replace(config, data=("no-such-file.json",)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_identity_mixer_and_lora_start_from_the_same_factors(config, tmp_path):
    for method in ("lora", "moslora"):
        train(dataclasses.replace(config, method=method, max_steps=1, learning_rate=1e-30), tmp_path / method)
    lora, moslora = (adapter_weights(tmp_path / method) for method in ("lora", "moslora"))
    for key, value in lora.items():
        assert torch.equal(value, moslora[key.replace("lora_A.weight", "lora_A.raw")]), key


def test_run_json_is_readable_without_torch(finished):
    assert json.loads((finished / "run.json").read_text())["versions"]["torch"] == importlib.metadata.version("torch")
