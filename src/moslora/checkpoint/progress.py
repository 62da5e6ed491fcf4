"""A progress bar for what takes long."""

import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

from rich.console import Console
from rich.progress import Progress

Item = TypeVar("Item")
PATIENCE_SECONDS = 2.0


def track(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """The items again, with a bar on stderr once they have taken two seconds."""
    start = time.perf_counter()
    bar = Progress(console=Console(stderr=True))
    task = bar.add_task(what, total=total)
    try:
        for item in items:
            yield item
            if not bar.live.is_started and time.perf_counter() - start > PATIENCE_SECONDS:
                bar.start()
            bar.advance(task)
    finally:
        if bar.live.is_started:
            bar.stop()
