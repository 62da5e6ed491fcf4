"""What training commands say at the end."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


def print_outcome(out: Path, record: Mapping[str, Any]) -> None:
    """Print steps, trained parameters, loss and seconds of a finished run.

    Args:
        out: the run folder.
        record: its run.json. A run shorter than `logging_steps` has no loss.
    """
    loss = record["final_loss"]
    print(
        f"{out}: {record['steps']} steps, {record['parameters']['trainable']:,} trained parameters, "
        f"{'no loss logged' if loss is None else f'loss {loss:.4f}'}, {record['seconds']:.0f} s"
    )
