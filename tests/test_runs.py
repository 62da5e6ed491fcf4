import json
import os
import subprocess
import sys

import pytest

from moslora import runs
from moslora.errors import DataError, RunError

SETTINGS = {"task": "toy", "config": {"rank": 4, "names": ("a", "b")}, "inputs": {"data": {"x.json": "0a"}}}


def test_streams_of_one_seed_differ_and_repeat():
    seeds = [runs.stream_seed(seed, stream) for seed in (0, 1) for stream in ("init", "data")]
    assert len(set(seeds)) == 4
    assert seeds == [runs.stream_seed(seed, stream) for seed in (0, 1) for stream in ("init", "data")]
    assert all(0 <= seed < 2**32 for seed in seeds)


def test_a_run_is_running_then_done(tmp_path):
    with runs.Run.open(tmp_path / "run", **SETTINGS) as run:
        assert runs.read_json(tmp_path / "run" / "run.json")["status"] == "running"
        run.log({"step": 1, "loss": 2.0})
    record = runs.read_json(tmp_path / "run" / "run.json")
    assert record["status"] == "done"
    assert record["config"] == {"rank": 4, "names": ["a", "b"]}
    assert record["seconds"] >= 0
    assert runs.read_rows(tmp_path / "run" / "metrics.jsonl")[0]["loss"] == 2.0


def test_an_error_is_recorded_and_the_run_can_be_taken_up(tmp_path):
    with pytest.raises(KeyError), runs.Run.open(tmp_path, **SETTINGS):
        raise KeyError("lost")
    assert runs.read_json(tmp_path / "run.json")["error"] == "KeyError: 'lost'"
    with runs.Run.open(tmp_path, **SETTINGS) as run:
        assert run.resumed
    assert "error" not in runs.read_json(tmp_path / "run.json")


def test_rewinding_forgets_what_will_be_done_again(tmp_path):
    with runs.Run.open(tmp_path, **SETTINGS) as run:
        for step in (1, 2, 3):
            run.log({"step": step})
        run.rewind(2)
        assert [row["step"] for row in runs.read_rows(tmp_path / "metrics.jsonl")] == [1, 2]


def test_other_settings_are_refused_and_listed(tmp_path):
    with pytest.raises(ValueError, match="stop"), runs.Run.open(tmp_path, **SETTINGS):
        raise ValueError("stop")
    other = {**SETTINGS, "config": {"rank": 8, "names": ["a", "b"]}, "inputs": {"data": {"x.json": "0b"}}}
    with pytest.raises(RunError) as caught:
        runs.Run.open(tmp_path, **other)
    assert "config.rank: 4 in the folder, 8 now" in str(caught.value)
    assert "inputs.data.x.json: '0a' in the folder, '0b' now" in str(caught.value)


def test_a_foreign_folder_and_a_finished_run_are_refused(tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(RunError, match=r"not a run folder.*thesis\.tex"):
        runs.Run.open(tmp_path, **SETTINGS)
    with runs.Run.open(tmp_path / "run", **SETTINGS):
        pass
    with pytest.raises(RunError, match="is finished"):
        runs.Run.open(tmp_path / "run", **SETTINGS)


@pytest.mark.skipif(sys.platform == "win32", reason="no file locks there")
def test_two_processes_do_not_share_a_run(tmp_path):
    code = (
        "import sys, pathlib\nfrom moslora import runs\n"
        f"with runs.Run.open(pathlib.Path(sys.argv[1]), **{SETTINGS!r}):\n    print('open', flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "open\n"
    with pytest.raises(RunError, match="Another process"):
        runs.Run.open(tmp_path, **SETTINGS)
    process.kill()
    process.wait()
    with runs.Run.open(tmp_path, **SETTINGS) as run:
        assert run.resumed


def test_a_torn_last_line_is_left_out_and_a_damaged_one_is_an_error(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    assert runs.read_rows(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a"\n{"a": 3}\n')
    with pytest.raises(DataError, match="Line 2"):
        runs.read_rows(path)


def test_a_fingerprint_changes_with_any_byte(tmp_path):
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "model.safetensors").write_bytes(b"0" * 100)
    before = runs.fingerprint(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"0" * 99 + b"1")
    after = runs.fingerprint(tmp_path)
    assert before["sha256"] != after["sha256"]
    assert before["files"]["config.json"] == after["files"]["config.json"]


def test_reading_runs_needs_no_torch(tmp_path):
    code = "import sys, moslora.runs; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True)
    assert printed.stdout == "False\n"


def test_toml_reads_back(tmp_path):
    import tomllib

    values = {"name": 'a "quoted" \\ path', "rank": 4, "rate": 3e-05, "flag": True, "names": ["x", "y"], "none": None}
    read = tomllib.loads(runs.to_toml(values, comment="two\nlines"))
    assert read == {key: value for key, value in values.items() if value is not None}
    assert json.loads(json.dumps(read)) == read
