"""Time of one adapted linear layer, forward and backward, against PEFT's LoRA and the frozen layer.

    python -m benchmarks.layer --size 4096 --tokens 4096 --dropout 0.05

Arms take turns, so that a slow moment hits all of them; what counts is the ratio within one round.
"""

import argparse

import torch
from rich.progress import Progress

from . import results
from .arms import ARMS, FLOOR, LORA, LORA_FLOAT32, attach
from .models import OneLinear
from .saved import device_of
from .timing import interleave, ratio, ratios

REFERENCES = (LORA, LORA_FLOAT32, FLOOR)


def main() -> None:
    """Measure and write benchmarks/results/layer-*.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", type=int, default=4096, help="inputs and outputs of the layer")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--dtype", choices=("bfloat16", "float32", "float16"), default="bfloat16")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--rounds", type=int, default=11)
    parser.add_argument("--repeat", type=int, default=1, help="steps per measurement; more for tiny layers")
    parser.add_argument("--arms", nargs="+", choices=sorted(ARMS), default=[FLOOR, LORA, LORA_FLOAT32, "moslora"])
    parser.add_argument("--name", help="of the results file")
    options = parser.parse_args()
    results.require_correct_ops()
    seconds = measure(options)
    measured = {"ratios": ratios(seconds, options.arms, REFERENCES)}
    rows = [
        [arm, *(str(ratio(seconds, arm, over)) if over in seconds else "-" for over in REFERENCES)]
        for arm in options.arms
    ]
    results.print_table("time over that of", ["arm", *REFERENCES], rows)
    name = options.name or f"layer-{options.size}-{options.tokens}-{options.dtype}-r{options.rank}-p{options.dropout:g}"
    results.write(f"{name}-{device_of(options.device)}", device_of(options.device), vars(options), measured)


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every arm in every round."""
    device, dtype = device_of(options.device), getattr(torch, options.dtype)
    torch.manual_seed(0)
    x = torch.randn(options.tokens, options.size, dtype=dtype, device=device, requires_grad=True)
    g = torch.randn(options.tokens, options.size, dtype=dtype, device=device)
    steps = {}
    for arm in options.arms:
        layer = attach(
            arm,
            OneLinear(options.size, options.size, dtype, device),
            r=options.rank,
            p=options.dropout,
            targets=["linear"],
        ).train()
        steps[arm] = _step(layer, x, g, options.repeat)
    with Progress() as progress:
        task = progress.add_task("rounds", total=options.rounds + 1)
        return interleave(steps, options.rounds, lambda: progress.advance(task))


def _step(layer: torch.nn.Module, x: torch.Tensor, g: torch.Tensor, repeat: int):
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]

    def step() -> None:
        for _ in range(repeat):
            torch.autograd.grad(layer(x), [x, *trained], g, allow_unused=True)

    return step


if __name__ == "__main__":
    main()
