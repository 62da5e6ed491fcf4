"""Time of one adapted linear layer, forward and backward, against PEFT's LoRA and the frozen layer.

    python -m benchmarks.layer --size 4096 --tokens 4096 --dropout 0.05

Arms take turns, so that a slow moment hits all of them; what counts is the ratio within one round.
"""

import argparse
from collections.abc import Callable

import torch

from .arms import attach
from .models import OneLinear
from .options import device_of, dtype_of
from .timed import Arm, compare, timed_parser


def main() -> None:
    """Measure and write benchmarks/results/layer-*.json."""
    parser = timed_parser(__doc__)
    parser.add_argument("--size", type=int, default=4096, help="inputs and outputs of the layer")
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--repeat", type=int, default=1, help="steps per measurement; more for tiny layers")
    options = parser.parse_args()
    name = f"layer-{options.size}-{options.tokens}-{options.dtype}-r{options.rank}-p{options.dropout:g}"
    compare(options, name, layer_arms)


def layer_arms(options: argparse.Namespace) -> dict[str, Arm]:
    """Each arm with the forward and backward pass of its layer."""
    device, dtype = device_of(options), dtype_of(options)
    torch.manual_seed(0)
    x = torch.randn(options.tokens, options.size, dtype=dtype, device=device, requires_grad=True)
    g = torch.randn(options.tokens, options.size, dtype=dtype, device=device)
    arms = {}
    for arm in options.arms:
        base = OneLinear(options.size, options.size, dtype, device)
        layer = attach(arm, base, r=options.rank, p=options.dropout, targets=["linear"]).train()
        arms[arm] = Arm(layer, _step(layer, x, g, options.repeat))
    return arms


def _step(layer: torch.nn.Module, x: torch.Tensor, g: torch.Tensor, repeat: int) -> Callable[[], None]:
    trained = [parameter for parameter in layer.parameters() if parameter.requires_grad]

    def step() -> None:
        for _ in range(repeat):
            torch.autograd.grad(layer(x), [x, *trained], g, allow_unused=True)

    return step


if __name__ == "__main__":
    main()
