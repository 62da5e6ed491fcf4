"""The steps of a demo: commands that are printed before they run."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

from ..errors import MoSLoRAError


def moslora(*words: str | Path) -> None:
    """Print a command line of moslora and run it.

    Raises:
        MoSLoRAError: it failed.
    """
    from . import main

    texts = list(map(str, words))
    print(f"\n$ moslora {shlex.join(texts)}", flush=True)
    if main(texts):
        raise MoSLoRAError(f"`moslora {shlex.join(texts[:2])}` failed; what it says is above.")


def moslora_together(*commands: tuple[object, ...]) -> None:
    """Print command lines of moslora and run them, as many at a time as there are cores and at most two.

    Raises:
        MoSLoRAError: one failed; the others are ended.
    """
    together = min(2, os.cpu_count() or 1)
    waiting = [list(map(str, words)) for words in commands]
    running: list[tuple[list[str], subprocess.Popen[bytes]]] = []
    while waiting or running:
        while waiting and len(running) < together:
            texts = waiting.pop(0)
            print(f"\n$ moslora {shlex.join(texts)}", flush=True)
            code = "import sys; from moslora.cli import main; sys.exit(main())"
            running.append((texts, subprocess.Popen([sys.executable, "-c", code, *texts])))
        texts, process = running.pop(0)
        if process.wait():
            for _, other in running:
                other.terminate()
            raise MoSLoRAError(f"`moslora {shlex.join(texts[:2])}` failed; what it says is above.")
