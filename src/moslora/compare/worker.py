"""What runs in a process that trains and evaluates cells; `workers.Worker` starts such processes.

It lives for many cells, since importing torch and transformers takes longer than training a small model. Jobs come as
pickles on stdin, one answer each leaves on stdout; everything that is printed goes to stderr, which is a log file.
"""

import contextlib
import gc
import os
import pickle
import queue
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import BinaryIO, NamedTuple

from .. import runs
from ..tasks.commonsense.config import CommonsenseEvalConfig, CommonsenseTrainConfig


class Job(NamedTuple):
    """A cell to bring to its end: trained unless it is, then evaluated."""

    name: str
    folder: Path
    train: CommonsenseTrainConfig | None  # None for the unadapted model
    evaluations: tuple[CommonsenseEvalConfig, ...]


class Answer(NamedTuple):
    """How a job went."""

    error: str | None
    seconds: float


def do(job: Job) -> None:
    """Train and evaluate one cell, in this process.

    Raises:
        MoSLoRAError: what training and evaluation raise.
    """
    import torch

    from ..tasks.commonsense.evaluate import evaluate
    from ..tasks.commonsense.train import train

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()  # this process has done other cells
    if job.train is not None and not runs.is_done(job.folder):
        train(job.train, job.folder)
    for config in job.evaluations:
        evaluate(config)


def _free_memory() -> None:
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _read_jobs(source: BinaryIO, jobs: "queue.SimpleQueue[Job]") -> None:
    """Hand jobs on. When the parent is gone, however it went, so is this process: nobody else would end it."""
    with contextlib.suppress(EOFError, OSError):
        while True:
            jobs.put(pickle.load(source))
    os._exit(0)


def main() -> None:
    """Do jobs until stdin closes."""
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    jobs: queue.SimpleQueue[Job] = queue.SimpleQueue()
    threading.Thread(target=_read_jobs, args=(sys.stdin.buffer, jobs), daemon=True).start()
    while True:
        job, start, error = jobs.get(), time.perf_counter(), None
        print(f"{runs.now()} {job.name}", file=sys.stderr, flush=True)
        try:
            do(job)
        except Exception as problem:  # whatever it is, it costs this cell alone
            traceback.print_exc()
            error = f"{type(problem).__name__}: {problem}"[:2000]
        _free_memory()
        pickle.dump(Answer(error, time.perf_counter() - start), answers)
        answers.flush()
