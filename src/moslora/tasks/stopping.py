"""SIGTERM and Ctrl-C end a run after the step at hand, with a checkpoint of it."""

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any, NoReturn, Self

from ..errors import Stopped
from .processes import any_process

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
        return any_process(self.received is not None)

    def stop(self, step: int, checkpoint: bool = True) -> NoReturn:
        """Raise Stopped.

        Args:
            step: that was the last one.
            checkpoint: whether there is one of it.
        """
        number = self.received or signal.SIGTERM  # which another process has received
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
