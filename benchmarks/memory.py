"""Memory of training: what autograd keeps, counted, and the peak over idle, measured in a process of its own.

    python -m benchmarks.memory --model llama3-8b --layers 1 --tokens 1024
    python -m benchmarks.memory --model llama3-8b --layers 8 --tokens 512 --peak

Kept bytes are counted by walking the graph. They are over the frozen floor: what the frozen model keeps anyway is taken
off before ratios are formed.
"""

import argparse
import ctypes
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from moslora.adapter import kernels_used, saved_bytes

from . import results
from .arms import ARMS, FLOOR, LORA, LORA_FLOAT32, attach
from .models import SHAPES, TARGETS, Block
from .options import device_of, dtype_of
from .options import parser as common_parser

STATUS, CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def main() -> None:
    """Measure and write benchmarks/results/memory-*.json."""
    parser = common_parser(__doc__, [FLOOR, LORA, LORA_FLOAT32, "moslora", "moslora-fused", "moslora-remat"])
    parser.add_argument("--model", choices=SHAPES, default="llama3-8b")
    parser.add_argument("--layers", type=int, default=1)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--peak", action="store_true", help="measure the peak, too: a process for every arm")
    parser.add_argument("--name", help="of the results file")
    parser.add_argument("--one", choices=sorted(ARMS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one, options)))
        return
    results.require_correct("tests/ops")
    measured = {arm: _in_own_process(arm) for arm in track(options.arms, "arms")}
    _report(options, measured)


def measure(arm: str, options: argparse.Namespace) -> dict[str, Any]:
    """`kept` bytes over the input, `peak` bytes over idle if it was asked for, and `kernels_used`."""
    device, dtype = device_of(options), dtype_of(options)
    block = Block(options.model, options.layers, dtype, device)
    block = attach(arm, block, r=options.rank, p=options.dropout, targets=TARGETS).train()
    hidden = SHAPES[options.model].hidden
    x = torch.randn(1, options.tokens, hidden, device=device).to(dtype).requires_grad_()
    trained = [parameter for parameter in block.parameters() if parameter.requires_grad]
    found: dict[str, Any] = {}
    if options.peak:
        idle = _reset_peak(device)
        y = block(x)
        torch.autograd.grad(y, [x, *trained], torch.ones_like(y), allow_unused=True)
        found["peak"] = _peak(device) - idle
    found["kept"] = saved_bytes(block(x), block)
    return found | {"kernels_used": kernels_used(block)}


def _in_own_process(arm: str) -> dict[str, Any]:
    words = [sys.executable, "-W", "ignore", "-m", "benchmarks.memory", *sys.argv[1:], "--one", arm]
    done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=results.ROOT)
    if done.returncode:
        sys.exit(f"{arm}: {done.stderr.strip()[-800:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def _report(options: argparse.Namespace, measured: dict[str, dict[str, Any]]) -> None:
    floor, lora = measured[FLOOR], measured[LORA]
    rows, ratios = [], {}
    for arm, found in measured.items():
        over = found["kept"] - floor["kept"]
        ratios[arm] = {"kept_over_floor_of_peft_lora": over / (lora["kept"] - floor["kept"])}
        row = [arm, f"{over / 2**20:,.1f}", f"{ratios[arm]['kept_over_floor_of_peft_lora']:.4f}"]
        if options.peak:
            ratios[arm] |= {
                "peak_of_peft_lora": found["peak"] / lora["peak"],
                "peak_of_floor": found["peak"] / floor["peak"],
            }
            row += [
                f"{found['peak'] / 2**20:,.0f}",
                *(f"{ratios[arm][f'peak_of_{n}']:.3f}" for n in ("peft_lora", "floor")),
            ]
        rows.append(row)
    header = ["arm", "kept over floor, MiB", "of peft-lora's"]
    header += ["peak over idle, MiB", "of peft-lora's", "of the floor's"] if options.peak else []
    results.print_table("memory of training", header, rows)
    name = f"memory-{options.model}-{options.layers}x{options.tokens}-{options.dtype}-p{options.dropout:g}"
    device = device_of(options)
    used = {arm: found.pop("kernels_used") for arm, found in measured.items()}
    measures = {"kernels_used": used, "bytes": measured, "ratios": ratios}
    results.write(f"{options.name or name}-{device}", device, vars(options), measures)


def _reset_peak(device: str) -> int:
    """Bytes held now, from which on the peak is looked at."""
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    ctypes.CDLL("libc.so.6").malloc_trim(0)  # what was freed while the model was made is not idle memory
    CLEAR.write_text("5")  # Linux: the peak of resident memory starts again
    return _status("VmRSS")


def _peak(device: str) -> int:
    if device == "cuda":
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated()
    return _status("VmHWM")


def _status(key: str) -> int:
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return int(lines[key].split()[0]) * 1024


if __name__ == "__main__":
    main()
