"""The doctor's findings hold exactly where their condition does."""

import json

import pytest

from moslora import doctor, runs
from moslora.cli import main
from moslora.doctor import GPU, Machine, diagnose, fast_here

A100 = GPU("A100", 80 * 2**30, (8, 0), True)
T4 = GPU("T4", 16 * 2**30, (7, 5), False)
HEALTHY = Machine(
    versions={"peft": "0.21.2"},
    requirements=["peft<0.22,>=0.21", "gguf>=0.19; extra == 'gguf'"],
    cpu="some CPU",
    cores=8,
    cpu_flags=frozenset(),
    gpus=[A100],
    torch_cuda="13.0",
    moslora_error="",
    torchvision_error="",
    environment={},
)


def test_nothing_is_wrong_with_a_healthy_machine():
    assert diagnose(HEALTHY) == []


@pytest.mark.parametrize(
    ("changes", "condition"),
    [
        ({"versions": {"peft": "0.22.0"}}, "peft 0.22.0 is outside the supported range"),
        ({"versions": {"peft": "0.20.9"}}, "peft 0.20.9 is outside the supported range"),
        ({"requirements": None}, "moslora is not installed"),
        (
            {"torchvision_error": "RuntimeError: operator torchvision::nms does not exist"},
            "torchvision does not import",
        ),
        (
            {"versions": {"peft": "0.21.2", "bitsandbytes": "0.50.2"}, "cpu_flags": frozenset({"avx512_bf16"})},
            "bitsandbytes on a CPU with AVX512-BF16",
        ),
        ({"versions": {"peft": "0.21.2", "optimum-quanto": "0.2"}}, "optimum-quanto is installed"),
        ({"gpus": [], "torch_cuda": None}, "no GPU: accelerate on a CPU"),
    ],
)
def test_each_condition_is_found_alone(changes, condition):
    found = diagnose(HEALTHY._replace(**changes))
    assert [finding.condition for finding in found] == [condition]
    assert not found[0].fatal


def test_half_of_a_condition_is_none():
    assert diagnose(HEALTHY._replace(versions={"peft": "0.21.2", "bitsandbytes": "0.50.2"})) == []
    assert diagnose(HEALTHY._replace(cpu_flags=frozenset({"avx512_bf16"}))) == []


def test_what_makes_the_package_unusable_is_fatal_and_first():
    broken = HEALTHY._replace(moslora_error="ImportError: no {torch}", requirements=None)
    first, second = diagnose(broken)
    assert (first.fatal, second.fatal) == (True, False)
    assert "ImportError: no {torch}" in first.what
    [missing] = diagnose(HEALTHY._replace(versions={}, requirements=["no-such-package-of-ours>=1"]))
    assert missing.fatal


@pytest.mark.parametrize(
    ("changes", "setting", "choice"),
    [
        ({}, "kernel auto", "fused"),
        ({"environment": {"MOSLORA_KERNEL": "remat"}}, "kernel auto", "remat"),
        ({}, "dtype auto", "bfloat16"),
        ({"gpus": [T4]}, "dtype auto", "float32"),
        ({"gpus": []}, "dtype auto", "float32"),
        ({"cpu_flags": frozenset({"amx_bf16"})}, "bfloat16 on the CPU", "native"),
        ({"environment": {"MOSLORA_TRITON": "1"}}, "Triton kernels", "no"),
        ({"versions": {"triton": "3.5"}}, "Triton kernels", "no"),
        ({"versions": {"triton": "3.5"}, "environment": {"MOSLORA_TRITON": "1"}}, "Triton kernels", "yes"),
        ({"versions": {"triton": "3.5"}, "environment": {"MOSLORA_TRITON": "1"}, "gpus": [T4]}, "Triton kernels", "no"),
    ],
)
def test_what_auto_takes(changes, setting, choice):
    rows = {name: taken for name, taken, _ in fast_here(HEALTHY._replace(**changes))}
    assert rows[setting] == choice


def test_json_of_this_machine_is_valid_and_true(capsys):
    assert main(["doctor", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["machine"]["versions"].items() >= runs.versions().items()
    assert set(printed["machine"]["versions"]) >= set(doctor.OPTIONAL)
    assert all(set(finding) == {"condition", "what", "do", "fatal"} for finding in printed["findings"])


def test_a_foreign_peft_is_shown_and_an_unusable_package_exits_with_1(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "examine", lambda: HEALTHY._replace(versions={"peft": "9.9"}))
    assert main(["doctor"]) == 0
    assert "9.9 is outside" in " ".join(capsys.readouterr().out.split())
    monkeypatch.setattr(doctor, "examine", lambda: HEALTHY._replace(moslora_error="ImportError: x"))
    assert main(["doctor", "--json"]) == 1
    printed = capsys.readouterr()
    assert json.loads(printed.out)["findings"][0]["fatal"]
    assert printed.err.startswith("error: moslora does not import")
