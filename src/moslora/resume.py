"""The checkpoints of an unfinished run, and which of them can be trusted.

    RUN/checkpoints/checkpoint-<step>/...          what a task has written
    RUN/checkpoints/checkpoint-<step>/complete     bytes and SHA-256 of every file, written last

Reading needs no torch. Only the first process of a distributed run writes.
"""

import json
import os
import shutil
import warnings
from pathlib import Path

from .errors import MoSLoRAWarning
from .runs import is_main_process, seals, write_json

COMPLETE = "complete"
DAMAGED = "damaged-"  # before the name of a checkpoint that was set aside


class Checkpoints:
    """The checkpoints of one run folder."""

    def __init__(self, run: Path) -> None:
        self.root = run / "checkpoints"

    def folder(self, step: int) -> Path:
        """Where the checkpoint after so many steps is."""
        return self.root / f"checkpoint-{step}"

    def complete(self) -> list[Path]:
        """Checkpoints that were written to their end, oldest first."""
        return [path for path in self._all() if (path / COMPLETE).exists()]

    def seal(self, step: int, limit: int, keep: str | None = None) -> None:
        """Mark a checkpoint as complete once it is on the disk; only the newest `limit` stay, and that at `keep`."""
        folder = self.folder(step)
        files = _files(folder)
        for path in files.values():
            with path.open("rb") as file:
                os.fsync(file.fileno())  # so that the mark never gets there before it
        write_json(folder / COMPLETE, {"step": step, "files": seals(files)})
        for old in self.complete()[:-limit]:
            if str(old) != str(keep):
                shutil.rmtree(old)

    def drop_unfinished(self) -> None:
        """Remove what a crash left half-written."""
        for path in self._all() if is_main_process() else []:
            if not (path / COMPLETE).exists():
                shutil.rmtree(path)

    def set_damaged_aside(self) -> None:
        """Rename checkpoints that are not as they were written, from the newest on, up to a sound one; warn of each."""
        for path in reversed(self.complete()) if is_main_process() else []:
            if not (reason := damage(path)):
                return
            aside = path.with_name(DAMAGED + path.name)
            shutil.rmtree(aside, ignore_errors=True)
            path.rename(aside)
            warnings.warn(
                f"Checkpoint {path.name} is damaged and was set aside as {aside}: {reason}. The run goes on from the "
                "last one that is sound, or begins again if there is none.",
                MoSLoRAWarning,
                stacklevel=2,
            )

    def _all(self) -> list[Path]:
        found = (path for path in self.root.glob("checkpoint-*") if path.is_dir())
        return sorted(found, key=lambda path: int(path.name.rpartition("-")[2]))


def damage(folder: Path) -> str | None:
    """What is wrong with the files of a complete checkpoint; None if they are as they were written."""
    try:
        listed = json.loads((folder / COMPLETE).read_text(encoding="utf-8"))["files"]
        written = {name: (seal["bytes"], seal["sha256"]) for name, seal in listed.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        return f"its list of files cannot be read ({error})"
    files = _files(folder)
    if missing := sorted(written.keys() - files.keys()):
        return f"{missing[0]} is missing"
    found = seals({name: files[name] for name in written})
    for name, (size, digest) in written.items():
        if found[name]["bytes"] != size:
            return f"{name} has {found[name]['bytes']:,} bytes, {size:,} were written"
        if found[name]["sha256"] != digest:
            return f"the content of {name} has changed since it was written"
    return None


def _files(folder: Path) -> dict[str, Path]:
    """What a checkpoint holds beside its list of files, by the path inside of it."""
    paths = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != COMPLETE)
    return {path.relative_to(folder).as_posix(): path for path in paths}
