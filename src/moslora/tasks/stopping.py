"""SIGTERM and Ctrl-C end a run after the step at hand, with a checkpoint of it."""

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

import torch

from ..errors import Stopped

SIGNALS = (signal.SIGTERM, signal.SIGINT)
_NOTED = b"\nStopping after this step, with a checkpoint. Once more stops at once.\n"


class StopSignals:
    """Within the block, the first of the signals is noted, and the next one acts as it did before the block.

    Only the main thread can arrange that; in another one nothing is ever noted.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._restore()

    def wanted(self) -> bool:
        """Whether any process of the run has received a signal. All of them must call this at the same step."""
        if any_process(self.received is not None):
            self.received = self.received or signal.SIGTERM  # another process's, or this one's
            return True
        return False

    def stop(self, step: int, checkpoint: bool = True) -> NoReturn:
        """Raise Stopped.

        Args:
            step: that was the last one.
            checkpoint: whether there is one of it.
        """
        number = self.received or signal.SIGTERM
        name = signal.Signals(number).name
        then = "The same command goes on from there." if checkpoint else "Without checkpoints, it begins again."
        raise Stopped(f"Stopped by {name} after step {step}. {then}", number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.received = number
        self._restore()
        with contextlib.suppress(OSError):
            os.write(2, _NOTED)  # a signal may come in the middle of a print, which print does not bear

    def _restore(self) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        self._before = {}


def any_process(flag: bool) -> bool:
    """Whether the flag is set in any process of a distributed run; all of them must ask."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return flag
    device = torch.accelerator.current_accelerator() if torch.distributed.get_backend() == "nccl" else "cpu"
    flags = torch.tensor(float(flag), device=device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return bool(flags)
