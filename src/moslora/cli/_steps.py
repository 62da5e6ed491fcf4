"""The steps of a demo: commands that are printed before they run."""

import shlex
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
