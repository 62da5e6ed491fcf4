"""A model of the hub: a connection lost in the middle of its weights, then fetched and trained; no secret is kept."""

import json
import os
import subprocess
import sys

import pytest

from moslora import runs
from moslora.embedded import model_folder
from tests.tasks.hub import COMMIT, hub

SECRETS = {"HF_TOKEN": "hf_very_secret_token", "WANDB_API_KEY": "very_secret_key", "OPENAI_API_KEY": "sk-very-secret"}
ITEM = {"instruction": "Which?", "input": "", "output": "the correct answer is this"}


@pytest.fixture
def train(tmp_path):
    """Trains two steps of the hub's model in a process of its own; the function takes the hub's address."""
    data = tmp_path / "train.json"
    data.write_text(json.dumps([ITEM | {"instruction": f"Which {number}?"} for number in range(20)]))

    def run(address):
        environment = {
            **os.environ,
            **SECRETS,
            "HF_ENDPOINT": address,
            "HF_HOME": str(tmp_path / "home"),
            "HF_HUB_DISABLE_XET": "1",
        }
        environment.pop("HF_HUB_OFFLINE", None)
        words = ["train", "commonsense", "--model", "stranger/small", "--data", str(data), "--max-steps", "2"]
        return subprocess.run(
            [sys.executable, "-m", "moslora", *words, "--out", str(tmp_path / "run")],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    return run


def test_a_lost_connection_is_called_that_and_the_same_command_goes_on_later(train, tmp_path):
    with hub(model_folder()) as (address, handler):
        handler.cut = True
        lost = train(address)
        assert lost.returncode == 1, lost.stderr
        assert handler.times_cut > 1, lost.stderr  # the hub's client tries again by itself
        assert "Cannot load the model from 'stranger/small': no connection to the hub, or it was lost" in lost.stderr
        assert "Traceback" not in lost.stderr
        handler.cut = False
        done = train(address)
        assert done.returncode == 0, done.stderr
    record = runs.read_json(tmp_path / "run" / "run.json")
    assert record["status"] == "done"
    assert COMMIT in json.dumps(record)
    kept = b"".join(path.read_bytes() for path in (tmp_path / "run").rglob("*") if path.is_file())
    for secret in SECRETS.values():
        assert secret.encode() not in kept
        assert secret not in lost.stdout + lost.stderr + done.stdout + done.stderr
