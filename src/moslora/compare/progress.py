"""Progress of a grid: a bar on stderr with the time left, and a line on stdout for every cell that ends."""

import statistics
import sys
import threading
from collections.abc import Iterable, Mapping
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from .worker import Job


class GridProgress:
    """Counts cells and guesses the time left from how long cells of each method took, in this and earlier commands."""

    def __init__(self, jobs: int, done: int, total: int, past: Mapping[str, Mapping[str, Any]]) -> None:
        self.jobs = jobs
        self.waiting: dict[str, str] = {}  # name of a job that has not ended -> its method
        self._ended = list(past.values())
        self._running: set[str] = set()
        self._failed = 0
        self._lock = threading.Lock()
        self._bar = Progress(
            TextColumn("cells"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}"),
            console=Console(stderr=True),
            redirect_stdout=sys.stdout.isatty(),  # a line that goes to a file must not land on stderr
        )
        self._task = self._bar.add_task("cells", total=total, completed=done, note="starting")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._bar.stop()

    def start(self, job: Job) -> None:
        """A worker has taken the job."""
        with self._lock:
            self._running.add(job.name)
            self._show()

    def finish(self, row: Mapping[str, Any], score: float | None) -> None:
        """A job has ended, as its row of progress.jsonl says."""
        with self._lock:
            self._running.discard(row["cell"])
            self.waiting.pop(row["cell"], None)
            self._ended.append(row)
            self._failed += row["status"] == "failed"
            outcome = f"failed: {row['error']}" if row["status"] == "failed" else f"done in {row['seconds']:.0f} s"
            accuracy = "" if score is None or row["status"] == "failed" else f", accuracy {score:.1%}"
            print(f"{row['cell']}: {outcome}{accuracy}", flush=True)
            if row["status"] == "done" and row["cell"] != "base":
                self._bar.advance(self._task)
            self._show()

    def _show(self) -> None:
        left = seconds_left(self.waiting.values(), seconds_by_method(self._ended), self.jobs)
        parts = [f"{self._failed} failed, {len(self._running)} running"]
        parts += [f"about {duration(left)} left"] if left else []
        self._bar.update(self._task, note=", ".join(parts))


def seconds_by_method(rows: Iterable[Mapping[str, Any]]) -> dict[str, list[float]]:
    """Seconds of the cells of each method that were done, from rows of progress.jsonl."""
    seconds: dict[str, list[float]] = {}
    for row in rows:
        if row["status"] == "done":
            seconds.setdefault(row["method"], []).append(row["seconds"])
    return seconds


def seconds_left(waiting: Any, seconds: Mapping[str, list[float]], jobs: int) -> float | None:
    """Guess from the mean time of the cells of each method, or of all where a method has none; None without any.

    Args:
        waiting: method of each cell that has not ended.
        seconds: method -> seconds of its cells that were done.
        jobs: cells done at a time.
    """
    known = {method: statistics.mean(each) for method, each in seconds.items() if method != "base"}
    if not known:
        return None
    usual = statistics.mean(known.values())
    return sum(known.get(method, usual) for method in waiting if method != "base") / jobs


def duration(seconds: float) -> str:
    """A time for reading: `40 s`, `12 min`, `3 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
