"""The memory that `moslora plan` estimates, against the peak of real training steps.

    python -m benchmarks.plan --models llama-28m llama-60m --micro-batches 4 --tokens 256

Two optimizer steps of transformers' Trainer, as `moslora train commonsense` sets it up, on samples of full length. The
peak is that of live tensor bytes: what is there before, and what torch's allocator hands out and takes back. Each
measurement is a process of its own.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch
from rich.progress import track
from torch.profiler import ProfilerActivity, profile
from torch.utils.data import Dataset

from moslora.methods import FULL
from moslora.tasks.batches import ROWS
from moslora.tasks.commonsense.attach import attach_adapter
from moslora.tasks.commonsense.config import CommonsenseTrainConfig
from moslora.tasks.commonsense.estimate import estimate
from moslora.tasks.training import build_trainer

from . import results
from .models import SHAPES, llama

LIMIT = 0.1  # of the peak, by which the estimate may be off


def main() -> None:
    """Measure and write benchmarks/results/plan-*.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=SHAPES, default=["llama-28m", "llama-60m"])
    parser.add_argument("--methods", nargs="+", default=["moslora"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--kernels", nargs="+", default=["reference", "fused", "remat"])
    parser.add_argument("--checkpointing", nargs="+", type=int, default=[0, 1])
    parser.add_argument("--micro-batches", nargs="+", type=int, default=[4])
    parser.add_argument("--tokens", nargs="+", type=int, default=[256])
    parser.add_argument("--name", default="plan-cpu", help="of the results file")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(*json.loads(options.one))))
        return
    arms = itertools.product(
        *(options.models, options.methods, options.dtypes, options.kernels, options.checkpointing),
        *(options.micro_batches, options.tokens),
    )
    rows = [_in_own_process(arm) for arm in track(list(arms), "measuring")]
    columns = ("model", "method", "dtype", "kernel", "checkpointing", "samples x tokens")
    results.print_table(
        "peak of live tensors, MiB",
        [*columns, "measured", "estimated", "estimated / measured"],
        [
            [*map(str, row["arm"]), *(f"{row[key] / 2**20:,.1f}" for key in ("measured", "estimated")), f"{ratio:.3f}"]
            for row, ratio in ((row, row["estimated"] / row["measured"]) for row in rows)
        ],
    )
    worst = max(abs(row["estimated"] / row["measured"] - 1) for row in rows)
    results.write(options.name, "cpu", vars(options), {"worst": worst, "rows": rows})
    if worst > LIMIT:
        sys.exit(f"The estimate is off by {worst:.1%}, more than {LIMIT:.0%}.")


def measure(name: str, method: str, dtype: str, kernel: str, checkpointing: int, samples: int, tokens: int) -> Any:
    """One arm: `measured` and `estimated` bytes, and the estimate's parts."""
    with tempfile.TemporaryDirectory() as folder:
        llama(name, torch.float32, "meta").config.save_pretrained(folder)
        config = CommonsenseTrainConfig(
            model=folder,
            method=method,
            dtype=dtype,
            kernel=kernel,
            gradient_checkpointing=bool(checkpointing),
            batch_size=2 * samples,  # two passes a step, so that gradients are there in the second
            micro_batch_size=samples,
            max_tokens=tokens,
            max_steps=2,
            logging_steps=1,
            save_steps=1000,
        )
        adapted = attach_adapter(llama(name, getattr(torch, "float32" if method == FULL else dtype), "cpu"), config)
        rows = _Rows(4 * samples, tokens, SHAPES[name].vocabulary)
        trainer = build_trainer(config, adapted, rows, None, _collate, Path(folder) / "checkpoints")
        trainer.args.save_strategy = "no"
        before = {each.untyped_storage().data_ptr(): each.untyped_storage().nbytes() for each in _tensors(adapted)}
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            trainer.train()
        numbers = estimate(config)
    return {
        "arm": [name, method, dtype, kernel, "yes" if checkpointing else "no", f"{samples} x {tokens}"],
        "measured": sum(before.values()) + _peak(profiler),
        "estimated": numbers.bytes,
        "parts": {part: value for part, value in numbers._asdict().items() if part.endswith("_bytes")},
    }


class _Rows(Dataset):  # type: ignore[type-arg]
    """Random tokens, all of one length."""

    def __init__(self, count: int, tokens: int, vocabulary: int) -> None:
        draw = torch.Generator().manual_seed(0)
        self.ids = torch.randint(2, vocabulary, (count, tokens), generator=draw)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> dict[str, Any]:
        ids = self.ids[index]
        return {
            "input_ids": ids,
            "attention_mask": torch.ones_like(ids),
            "labels": ids,
            ROWS: torch.tensor(index),
        }


def _collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {key: torch.stack([row[key] for row in rows]) for key in rows[0]}


def _tensors(model: torch.nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]


def _peak(profiler: Any) -> int:
    """Most bytes that were handed out and not taken back, since the profiler started."""
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    running = itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda event: event.start_ns()))
    return max(running, default=0)


def _in_own_process(arm: tuple[Any, ...]) -> dict[str, Any]:
    words = [sys.executable, "-W", "ignore", "-m", "benchmarks.plan", "--one", json.dumps(arm)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=results.ROOT)
    if done.returncode:
        sys.exit(f"{arm}: {done.stderr.strip()[-800:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    main()
