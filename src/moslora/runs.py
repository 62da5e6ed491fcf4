"""The folder of one run: what was asked for, with what, on what, and how it went.

    RUN/run.json        config, seeds, versions, commit, hashes, peak memory, seconds, status (see `Run`)
    RUN/recipe.toml     the whole config again, as a recipe that `--recipe RUN/recipe.toml` accepts
    RUN/metrics.jsonl   one line a logged step
    RUN/checkpoints/    only while the run is unfinished; see resume.py

Reading needs no torch. Only the first process of a distributed run writes.
"""

import contextlib
import datetime
import hashlib
import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from . import __version__
from .errors import DataError, RunError, Stopped
from .locks import lock_folder

# Settings that an unfinished run may be resumed with another value of: they say how it is computed, not what.
ADJUSTABLE = (
    *("micro_batch_size", "gradient_checkpointing", "kernel", "workers", "deepspeed"),
    *("skip_nonfinite", "checkpoint_limit", "report_to"),
)
MODEL_SUFFIXES = {".json", ".safetensors", ".bin", ".model", ".txt", ".jinja"}


def stream_seed(run_seed: int, stream: str) -> int:
    """Seed of one named source of randomness, for example "data", "init" or "dropout"; in [0, 2**32)."""
    return int.from_bytes(hashlib.sha256(f"{run_seed}/{stream}".encode()).digest()[:4], "little")


def is_main_process() -> bool:
    """True in a run of one process, and in the first process that torchrun started."""
    return int(os.environ.get("RANK", "0")) == 0


# A file name that is no UTF-8 has lone surrogates in Python. This writes them as JSON escapes, which bring them back.
_SURROGATES = "backslashreplace"


def write_text(path: Path, text: str) -> None:
    """Write a file so that a crash leaves either the old content or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    with unfinished.open("w", encoding="utf-8", errors=_SURROGATES) as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


def write_json(path: Path, value: Any) -> None:
    """`write_text` of indented JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Content of a JSON file.

    Raises:
        DataError: the file is missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"Cannot read {path}: {error}. Expected a JSON file written by moslora.") from error


def append_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add one JSON line per row and bring them to the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", errors=_SURROGATES) as file:
        file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.flush()
        os.fsync(file.fileno())


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Rows of a JSON-lines file; none if it is missing. A last line that a crash cut off is left out.

    Raises:
        DataError: another line is not JSON.
    """
    if not path.exists():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")[:-1]  # what follows the last newline is torn
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            rows.append(json.loads(line))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"Line {number} of {path} is not JSON ({error}): the file is damaged. Remove it to start it again."
            ) from error
    return rows


def rewrite_rows(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Replace a JSON-lines file at once."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def to_toml(values: Mapping[str, Any], comment: str = "") -> str:
    """Flat values as TOML. None is left out, since TOML has no such value."""

    def text(value: Any) -> str:
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(text, value)) + "]"
        return json.dumps(value, ensure_ascii=False)  # JSON's strings, numbers and booleans are TOML's as well

    lines = [f"# {line}".rstrip() for line in comment.splitlines()]
    return "\n".join(lines + [f"{key} = {text(value)}" for key, value in values.items() if value is not None]) + "\n"


def file_sha256(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def seals(files: Mapping[str, Path]) -> dict[str, dict[str, Any]]:
    """Bytes and SHA-256 of each file, by the names given."""

    def seal(path: Path) -> dict[str, Any]:
        return {"bytes": path.stat().st_size, "sha256": file_sha256(path)}

    with ThreadPoolExecutor() as pool:  # hashlib lets go of the interpreter lock
        return dict(zip(files, pool.map(seal, files.values()), strict=True))


def fingerprint(folder: Path) -> dict[str, Any]:
    """What identifies a model or adapter folder: bytes and SHA-256 of each file, and one SHA-256 over all of them."""
    paths = sorted(path for path in folder.iterdir() if path.is_file() and path.suffix in MODEL_SUFFIXES)
    files = seals({path.name: path for path in paths})
    return {"sha256": hashlib.sha256(json.dumps(files).encode()).hexdigest(), "files": files}


def versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    found = {"moslora": __version__, "python": platform.python_version(), "platform": platform.platform()}
    for name in ("torch", "transformers", "peft", "accelerate", "datasets"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def git_state() -> dict[str, Any] | None:
    """Commit of the working directory and whether it has uncommitted changes; None outside a git repository."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], capture_output=True, text=True, check=True, timeout=20).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain"))}
    except (OSError, subprocess.SubprocessError):
        return None


def peak_memory() -> dict[str, Any]:
    """Most memory this process has held: `bytes`, `of` the CUDA allocator if a GPU was used, else `of` the process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return {"bytes": torch.cuda.max_memory_allocated(), "of": "cuda"}
    try:
        import resource
    except ImportError:
        return {"bytes": None, "of": "process"}
    unit = 1 if sys.platform == "darwin" else 1024
    return {"bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit, "of": "process"}


def now() -> str:
    """The time in UTC, to the second, in ISO form."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def is_done(folder: Path) -> bool:
    """Whether the folder holds a finished run.

    Raises:
        DataError: its run.json cannot be read.
    """
    path = folder / "run.json"
    return path.exists() and read_json(path).get("status") == "done"


def finished_record(folder: Path) -> dict[str, Any]:
    """Content of run.json of a finished run.

    Raises:
        DataError: there is none.
        RunError: the run is not finished.
    """
    record = read_json(folder / "run.json")
    if record.get("status") != "done":
        raise RunError(
            f"The run in {folder} is not finished (status {record.get('status')!r}): repeat its `moslora train` "
            "command to resume it first."
        )
    return record


class Run:
    """The writer of one run folder.

    Use it as a context manager. The status in run.json is `running`; when the run is left, `done`, `stopped` (by a
    signal, with a checkpoint) or `failed`, with the error. `record` is the content of run.json; `resumed` says whether
    an unfinished run is being continued.
    """

    def __init__(self, folder: Path, record: dict[str, Any], resumed: bool, lock: int | None) -> None:
        self.folder = folder
        self.record = record
        self.resumed = resumed
        self._lock = lock
        self._started = time.perf_counter()
        self._seconds_before = 0.0

    @classmethod
    def open(
        cls, folder: Path, *, task: str, config: Mapping[str, Any], inputs: Mapping[str, Any], **facts: Any
    ) -> Self:
        """Begin a run, or take up an unfinished one of the same config and inputs.

        Args:
            folder: new, empty, or that of an unfinished run.
            task: name of the task, for example "commonsense".
            config: every setting; JSON values.
            inputs: hashes of model and data; JSON values. Like the config, they must be the same when resuming, but for
                the settings in `ADJUSTABLE`.
            facts: more entries of run.json.

        Raises:
            RunError: the run is finished, at work in another process, has another config or other inputs, or the
                folder holds something else or cannot be written.
        """
        if not is_main_process():
            path = folder / "run.json"
            return cls(folder, read_json(path) if path.exists() else {}, path.exists(), None)
        if folder.exists() and not folder.is_dir():
            raise RunError(f"{folder} is a file: expected a folder for the run. Choose another --out.")
        old = cls._unfinished(folder)
        record = {"task": task, "config": dict(config), "inputs": dict(inputs), **facts}
        record = json.loads(json.dumps(record))  # tuples become lists, as when read back
        if old is not None:
            refuse_differences(folder, _without_adjustable(old), _without_adjustable(record))
        _make_writable(folder)
        run = cls(folder, {**(old or {}), **record}, old is not None, lock_folder(folder))
        run.record |= {"status": "running", "versions": versions(), "git": git_state()}
        run.record.setdefault("started", now())
        for outcome in ("error", "finished", "seconds", "peak_memory"):
            run.record.pop(outcome, None)
        run.save()
        write_text(folder / "recipe.toml", to_toml(config, comment=f"Settings of the run in {folder}, task {task}."))
        return run

    @staticmethod
    def _unfinished(folder: Path) -> dict[str, Any] | None:
        path = folder / "run.json"
        if not path.exists():
            others = sorted(entry.name for entry in folder.iterdir() if entry.name[0] != ".") if folder.exists() else []
            if others:
                raise RunError(
                    f"{folder} is not a run folder: it has no run.json, but {', '.join(others[:5])}. "
                    "Nothing was changed; choose another --out."
                )
            return None
        record = read_json(path)
        if record.get("status") == "done":
            raise RunError(
                f"The run in {folder} is finished (status done). Nothing was changed; choose another --out, "
                "or remove the folder to run again."
            )
        return record

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, Stopped):
            self.record |= {"status": "stopped"}
        elif error is not None:
            self.record |= {"status": "failed", "error": f"{type(error).__name__}: {error}"}
        else:
            self.record |= {"status": "done"}
        self.record |= {"finished": now(), "seconds": round(self.seconds(), 3), "peak_memory": peak_memory()}
        try:
            self.save()
        except OSError:
            if error is None:
                raise
            # Else the disk is full or gone, and the error that is on its way says more than this one.
        if error is None and is_main_process():
            shutil.rmtree(self.folder / "checkpoints", ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)

    def save(self) -> None:
        """Write run.json."""
        if is_main_process():
            write_json(self.folder / "run.json", self.record)

    def seconds(self) -> float:
        """Time spent on this run, without what was lost between a checkpoint and a crash."""
        return self._seconds_before + time.perf_counter() - self._started

    def log(self, row: Mapping[str, Any]) -> None:
        """Add one line to metrics.jsonl, with the `seconds` so far."""
        if is_main_process():
            append_rows(self.folder / "metrics.jsonl", [{**row, "seconds": round(self.seconds(), 3)}])

    def rewind(self, step: int) -> None:
        """Forget what metrics.jsonl and `skipped_updates` say of later steps, which are about to be done again."""
        path = self.folder / "metrics.jsonl"
        kept = [row for row in read_rows(path) if row["step"] <= step]
        self._seconds_before = kept[-1]["seconds"] if kept else 0.0
        self._started = time.perf_counter()
        if is_main_process():
            rewrite_rows(path, kept)
            if skipped := [each for each in self.record.pop("skipped_updates", []) if each["step"] <= step]:
                self.record["skipped_updates"] = skipped
            self.record.setdefault("resumed_from_steps", []).append(step)


def refuse_differences(folder: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> None:
    """Make sure that unfinished work is taken up only with the settings and inputs it was begun with.

    Args:
        folder: where it lies, for the message.
        old: what the folder says, by part, for example "config" and "inputs".
        new: what this command says; parts that only `old` has are not looked at.

    Raises:
        RunError: lists every difference.
    """
    differences = []
    for part in new:
        before, after = _flat(part, old.get(part)), _flat(part, new[part])
        differences += [
            f"  {key}: {before.get(key)!r} in the folder, {after.get(key)!r} now"
            for key in sorted({*before, *after})
            if before.get(key) != after.get(key)
        ]
    if differences:
        raise RunError(
            f"{folder} holds unfinished work that differs from this command:\n"
            + "\n".join(differences)
            + "\nNothing was changed. Repeat the first command to go on with it, or choose or make another folder."
        )


def _without_adjustable(record: Mapping[str, Any]) -> dict[str, Any]:
    config = {key: value for key, value in record["config"].items() if key not in ADJUSTABLE}
    return {**record, "config": config}


def _make_writable(folder: Path) -> None:
    """Make the folder, and find out now whether it can be written."""
    probe = folder / f".probe.{os.getpid()}"
    try:
        str(folder.absolute()).encode()  # safetensors opens no other names
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except (OSError, UnicodeEncodeError) as error:
        raise RunError(f"The run cannot be written into {folder}: {error}. Choose another --out.") from error


def _flat(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        return {name: value}
    return {key: leaf for part, inner in value.items() for key, leaf in _flat(f"{name}.{part}", inner).items()}
