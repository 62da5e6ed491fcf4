"""The same run under every engine, whole and interrupted, held to one process: adapters to 1e-6, losses to 1e-6."""

import pytest
import safetensors.torch
import torch

from moslora import runs
from tests.tasks.engines import difference, losses, needs_deepspeed, start

ENGINES = [
    "ddp",
    "fsdp2",
    pytest.param("zero2", marks=needs_deepspeed),
    pytest.param("zero3", marks=needs_deepspeed),
]


@pytest.fixture(scope="module")
def arguments(tiny_model, questions):
    """Six steps of 8 samples in micro-batches of 2."""
    settings = {
        "model": tiny_model,
        "data": questions / "train.json",
        "dtype": "float32",
        "dropout": 0,
        "max-steps": 6,
        "save-steps": 2,
        "logging-steps": 1,
        "batch-size": 8,
        "micro-batch-size": 2,
        "warmup-steps": 2,
        "learning-rate": 3e-3,
    }
    return ["train", "commonsense", *(word for key, value in settings.items() for word in (f"--{key}", str(value)))]


@pytest.fixture(scope="module")
def one_process(arguments, tmp_path_factory):
    out = tmp_path_factory.mktemp("one") / "run"
    start("none", 1, [*arguments, "--out", str(out)])
    return out


def interrupted(engine, first, second, arguments, out):
    """Killed after 4 of 6 steps in `first` processes, gone on with in `second`."""
    words = [*arguments, "--out", str(out)]
    start(engine, first, words, stop=4)
    start(engine, second, words)
    return runs.read_json(out / "run.json")


def assert_equal(out, expected):
    assert difference(out, expected) < 1e-6
    assert losses(out) == pytest.approx(losses(expected), rel=1e-6)
    assert len(losses(out)) == 6


def test_two_processes_train_what_one_does_and_one_goes_on_with_it(arguments, one_process, tmp_path):
    record = interrupted("ddp", 2, 1, arguments, tmp_path / "run")
    assert_equal(tmp_path / "run", one_process)
    assert record["resumed_from_steps"] == [4]
    worlds = [*record["earlier_worlds"], record["world"]]
    assert [each["processes"] for each in worlds] == [2, 1]
    assert worlds[0] == {"processes": 2, "engine": "ddp", "backend": "gloo", "device": "cpu"}


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_an_engine_trains_what_one_process_does(engine, arguments, one_process, tmp_path):
    start(engine, 2, [*arguments, "--out", str(tmp_path / "run")])
    assert_equal(tmp_path / "run", one_process)
    world = runs.read_json(tmp_path / "run" / "run.json")["world"]
    names = {"zero2": "deepspeed zero-2", "zero3": "deepspeed zero-3"}
    assert (world["processes"], world["engine"]) == (2, names.get(engine, engine))


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [(2, 1), (1, 2)])
@pytest.mark.parametrize("engine", ENGINES)
def test_another_number_of_processes_goes_on(engine, first, second, arguments, one_process, tmp_path):
    record = interrupted(engine, first, second, arguments, tmp_path / "run")
    assert_equal(tmp_path / "run", one_process)
    assert (record["resumed_from_steps"], record["world"]["processes"]) == ([4], second)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_mixers_of_the_first_gradient_are_those_of_one_process(engine, arguments, tiny_model, tmp_path):
    method = tmp_path / "gradient.json"
    method.write_text(
        '{"peft_type": "MOSLORA", "r": 4, "init_mixer": "gradient", "target_modules": ["q_proj", "up_proj"]}'
    )
    words = [*arguments, "--method", f"file:{method}", "--max-steps", "2"]
    for name, processes in (("none", 1), (engine, 2)):
        start(name, processes, [*words, "--out", str(tmp_path / name)])
    assert difference(tmp_path / engine, tmp_path / "none") < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_a_run_that_was_killed_before_it_saved_its_adapter_saves_it_then(engine, arguments, one_process, tmp_path):
    words = [*arguments, "--out", str(tmp_path / "run")]
    start(engine, 2, words, stop=6)
    assert not (tmp_path / "run" / "adapter").exists()
    start(engine, 2, words)
    assert_equal(tmp_path / "run", one_process)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ENGINES)
def test_an_adapter_is_saved_in_float32_when_the_computation_is_in_bfloat16(engine, arguments, tmp_path):
    words = [*arguments, "--dtype", "bfloat16", "--max-steps", "2"]
    for name, processes in (("none", 1), (engine, 2)):
        start(name, processes, [*words, "--out", str(tmp_path / name)])
    saved = safetensors.torch.load_file(tmp_path / engine / "adapter" / "adapter_model.safetensors")
    assert {value.dtype for value in saved.values()} == {torch.float32}
    assert any(not torch.equal(value, value.bfloat16().float()) for value in saved.values())
    # Each step moves a number by the learning rate of at most 3e-3; its direction is rounded.
    assert difference(tmp_path / engine, tmp_path / "none") < 3e-3
