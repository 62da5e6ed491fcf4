"""The parent's side of the worker processes: start, feed, replace, end."""

import os
import pickle
import queue
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from .worker import Answer, Job


class Worker:
    """One worker process, started when it gets its first job and replaced when it has died."""

    def __init__(self, log: Path, environment: dict[str, str]) -> None:
        self.log = log
        self.environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def do(self, job: Job) -> Answer:
        """Wait until the job is done or the process is dead."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            pickle.dump(job, process.stdin)
            process.stdin.flush()
            return pickle.load(process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError):
            code = process.wait()
            self._process = None
            return Answer(f"the worker process {_death(code)}; its output is in {self.log}", 0.0)

    def end(self) -> None:
        """Kill the process. What it was doing can be resumed."""
        self._ended = True
        if self._process is not None:
            self._process.kill()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None or self._process.poll() is not None:
            self.log.parent.mkdir(parents=True, exist_ok=True)
            with self.log.open("ab") as log:
                self._process = subprocess.Popen(
                    [sys.executable, "-c", "from moslora.compare.worker import main; main()"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=log,
                    env=self.environment,
                    start_new_session=True,  # Ctrl-C in the terminal is for the parent, which ends the workers
                )
            if self._ended:
                self._process.kill()
        return self._process


def _death(code: int) -> str:
    if code >= 0:
        return f"ended with exit code {code}"
    name = signal.Signals(-code).name
    return f"was ended by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")


class Pool:
    """Workers that do jobs in parallel. A context manager: leaving it ends the processes, whatever they are doing."""

    def __init__(self, size: int, logs: Path, devices: Sequence[str]) -> None:
        self.workers = [
            Worker(logs / f"worker-{number}.log", environment(number, size, devices)) for number in range(size)
        ]

    def __enter__(self) -> "Pool":
        self._threads = ThreadPoolExecutor(len(self.workers))
        return self

    def __exit__(self, *_: Any) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)
        for worker in self.workers:
            worker.end()
        self._threads.shutdown()

    def do(self, jobs: Sequence[Job], started: Any) -> Iterator[tuple[Job, Answer]]:
        """Each job with its answer, in the order they end.

        Args:
            jobs: are begun in this order.
            started: called with a job when a worker takes it, in another thread.
        """
        idle: queue.SimpleQueue[Worker] = queue.SimpleQueue()
        for worker in self.workers:
            idle.put(worker)

        def one(job: Job) -> Answer:
            worker = idle.get()
            try:
                started(job)
                return worker.do(job)
            finally:
                idle.put(worker)

        futures = {self._threads.submit(one, job): job for job in jobs}
        for future in as_completed(futures):
            yield futures[future], future.result()


def environment(number: int, workers: int, devices: Sequence[str]) -> dict[str, str]:
    """Environment of worker `number`: its share of the cores, and one of the GPUs."""
    values = dict(os.environ)
    values.setdefault("OMP_NUM_THREADS", str(max(1, cores() // workers)))
    # The package of the parent, also where it is not installed.
    source = str(Path(__file__).parents[2])
    values["PYTHONPATH"] = os.pathsep.join([source, *filter(None, [values.get("PYTHONPATH")])])
    if devices:
        values["CUDA_VISIBLE_DEVICES"] = devices[number % len(devices)]
    return values


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpus() -> list[str]:
    """The GPUs this process may use, as CUDA_VISIBLE_DEVICES names them."""
    import torch

    count = torch.cuda.device_count()
    named = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]
