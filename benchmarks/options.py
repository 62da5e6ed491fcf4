"""The flags that all benchmarks share."""

import argparse
from collections.abc import Sequence

import torch

from .arms import ARMS


def parser(description: str | None, arms: Sequence[str]) -> argparse.ArgumentParser:
    """A parser with rank, dropout, dtype, device and the arms, whose default is given."""
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--rank", type=int, default=16)
    made.add_argument("--dropout", type=float, default=0.05)
    made.add_argument("--dtype", choices=("bfloat16", "float32", "float16"), default="bfloat16")
    made.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: CUDA where there is some"
    )
    made.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=arms)
    return made


def device_of(options: argparse.Namespace) -> str:
    """The device that was asked for: "cpu" or "cuda"."""
    if options.device != "auto":
        return str(options.device)
    return "cuda" if torch.cuda.is_available() else "cpu"


def dtype_of(options: argparse.Namespace) -> torch.dtype:
    """The dtype that was asked for."""
    return getattr(torch, options.dtype)
