"""What a person can do when memory or disk run out in the middle of a run."""

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import torch

from ..errors import MoSLoRAError, RunError
from .settings import AdapterSettings

FULL = 4 * 2**20  # bytes left on a disk that is full
_NO_MEMORY = ("out of memory", "can't allocate memory", "cannot allocate memory")


@contextlib.contextmanager
def explained(config: AdapterSettings, folder: Path) -> Iterator[None]:
    """Within the block, lack of memory or of disk becomes a RunError that says what to change.

    Args:
        config: settings of the run.
        folder: of the run.
    """
    try:
        yield
    except MoSLoRAError:
        raise
    except Exception as error:
        if isinstance(error, (torch.OutOfMemoryError, MemoryError)) or any(
            words in str(error).lower() for words in _NO_MEMORY
        ):
            raise RunError(_memory_advice(config, error)) from error
        if (free := shutil.disk_usage(folder).free) < FULL:
            raise RunError(
                f"The disk of {folder} is full ({free:,} bytes left): {error}. Complete checkpoints are untouched. "
                "Make room, then repeat the command: it goes on from the last one."
            ) from error
        raise


def _memory_advice(config: AdapterSettings, error: Exception) -> str:
    advice = []
    if config.micro_batch_size > 1:
        half = config.micro_batch_size // 2
        advice.append(f"--micro-batch-size {half} (now {config.micro_batch_size})")
    if not config.gradient_checkpointing:
        advice.append("--gradient-checkpointing (a third more time)")
    if config.kernel in ("reference", "fused"):
        advice.append(f"--kernel auto (now {config.kernel})")
    if getattr(config, "quantize", None) == "none":
        advice.append("--quantize nf4 (a base in 4 bits: another run)")
    if config.rank > 8:
        advice.append(f"--rank {config.rank // 2} (now {config.rank}: another run)")
    first = str(error).strip().partition("\n")[0][:200]
    listed = "".join(f"\n  {each}" for each in advice)
    return (
        f"Memory ran out: {first}\nThese take less of it:{listed}\nWhat is not another run may be changed when "
        "this one is resumed. `moslora plan` says what fits a card."
    )
