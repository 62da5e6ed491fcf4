"""One process at a time in a folder. Pure Python."""

import os
from pathlib import Path

from .errors import RunError

try:
    import fcntl
except ImportError:  # Windows: two commands in one run folder are then not noticed
    fcntl = None  # type: ignore[assignment]


def lock_folder(folder: Path) -> int | None:
    """Lock the folder until this process ends, however it ends; returns the descriptor to close.

    Raises:
        RunError: another process has locked it.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(descriptor)
        raise RunError(
            f"Another process is at work in {folder}. Wait for it, end it, or choose another --out."
        ) from error
    return descriptor
