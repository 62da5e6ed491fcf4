"""Time of a whole training step of a Llama: forward, backward and AdamW, against PEFT's LoRA and the frozen model.

    python -m benchmarks.step --model llama-60m --dropout 0.05
    python -m benchmarks.step --model llama3-8b --device cuda --batch 4 --tokens 256

The weights are random, the shape is real. The frozen model's step has a gradient for its embeddings, so that its
backward pass goes through every layer as an adapted model's does.
"""

import argparse
from collections.abc import Callable

import torch
from torch import nn

from .arms import attach
from .models import SHAPES, TARGETS, llama
from .options import device_of, dtype_of
from .timed import Arm, compare, timed_parser


def main() -> None:
    """Measure and write benchmarks/results/step-*.json."""
    parser = timed_parser(__doc__)
    parser.add_argument("--model", choices=SHAPES, default="llama-60m")
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--batch", type=int, default=1, help="samples in a step")
    parser.add_argument("--tokens", type=int, default=512, help="per sample")
    options = parser.parse_args()
    tokens = options.batch * options.tokens
    name = f"step-{options.model}-{tokens}-{options.dtype}-r{options.rank}-p{options.dropout:g}"
    compare(options, name, model_arms)


def model_arms(options: argparse.Namespace) -> dict[str, Arm]:
    """Each arm with the training step of its model. All arms share one set of frozen weights."""
    device, dtype = device_of(options), dtype_of(options)
    weights = llama(options.model, dtype, device, options.layers).state_dict()
    arms = {}
    for arm in options.arms:
        base = llama(options.model, dtype, "meta", options.layers)
        base.load_state_dict(weights, assign=True)
        base.model.rotary_emb = type(base.model.rotary_emb)(base.config).to(device)  # its buffers are in no state dict
        model = attach(arm, base, r=options.rank, p=options.dropout, targets=TARGETS).train()
        arms[arm] = Arm(model, training_step(model, options.batch, options.tokens, device))
    return arms


def training_step(model: nn.Module, batch: int, tokens: int, device: str) -> Callable[[], None]:
    """One optimizer step on random tokens."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4) if trained else None
    embed = model.get_input_embeddings()
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(embed.num_embeddings, (batch, tokens), generator=draw).to(device)

    def step() -> None:
        inputs = embed(ids).detach().requires_grad_()
        loss = model(inputs_embeds=inputs, labels=ids).loss
        loss.backward()
        if optimizer is not None:
            optimizer.step()
            optimizer.zero_grad()

    return step


if __name__ == "__main__":
    main()
