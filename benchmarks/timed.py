"""What the benchmarks of time share: their flags, the turns of the arms, and the report."""

import argparse
from collections.abc import Callable, Mapping
from typing import NamedTuple

from rich.progress import Progress
from torch import nn

from moslora.adapter import kernels_used

from . import results
from .arms import FLOOR, LORA, LORA_FLOAT32
from .options import device_of, parser
from .timing import interleave, ratio, ratios

REFERENCES = (LORA, LORA_FLOAT32, FLOOR)


class Arm(NamedTuple):
    """What is timed."""

    model: nn.Module
    step: Callable[[], None]


def timed_parser(description: str | None) -> argparse.ArgumentParser:
    """The common flags, and the number of rounds and the name of the results file."""
    made = parser(description, [FLOOR, LORA, LORA_FLOAT32, "moslora"])
    made.add_argument("--rounds", type=int, default=11)
    made.add_argument("--name", help="of the results file")
    return made


def compare(options: argparse.Namespace, name: str, make: Callable[[argparse.Namespace], Mapping[str, Arm]]) -> None:
    """Time the arms in turns, print their ratios, and write benchmarks/results/NAME-DEVICE.json.

    Args:
        options: of `timed_parser`.
        name: of the results file, unless --name gives another.
        make: name -> arm, whose step is one measurement's work; called once the tests of the fast path have passed.
    """
    results.require_correct("tests/ops")
    arms = make(options)
    steps = {name: arm.step for name, arm in arms.items()}
    with Progress() as progress:
        task = progress.add_task("rounds", total=options.rounds + 1)
        seconds = interleave(steps, options.rounds, lambda: progress.advance(task))
    rows = [
        [arm, *(str(ratio(seconds, arm, over)) if over in seconds else "-" for over in REFERENCES)] for arm in seconds
    ]
    results.print_table("time over that of", ["arm", *REFERENCES], rows)
    device = device_of(options)
    used = {name: kernels_used(arm.model) for name, arm in arms.items()}
    measured = {"kernels_used": used, "ratios": ratios(seconds, seconds, REFERENCES)}
    results.write(f"{options.name or name}-{device}", device, vars(options), measured)
