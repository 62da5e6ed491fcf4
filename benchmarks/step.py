"""Time of a whole training step of a Llama: forward, backward and AdamW, against PEFT's LoRA and the frozen model.

    python -m benchmarks.step --model llama-60m --dropout 0.05
    python -m benchmarks.step --model llama3-8b --device cuda --batch 4 --tokens 256

The weights are random, the shape is real. The frozen model's step has a gradient for its embeddings, so that its
backward pass goes through every layer as an adapted model's does.
"""

import argparse
from collections.abc import Callable

import torch
from rich.progress import Progress
from torch import nn

from . import results
from .arms import ARMS, FLOOR, LORA, LORA_FLOAT32, attach
from .models import SHAPES, TARGETS, llama
from .saved import device_of
from .timing import interleave, ratio, ratios

REFERENCES = (LORA, LORA_FLOAT32, FLOOR)


def main() -> None:
    """Measure and write benchmarks/results/step-*.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=SHAPES, default="llama-60m")
    parser.add_argument("--layers", type=int, help="fewer layers than the model has")
    parser.add_argument("--batch", type=int, default=1, help="samples in a step")
    parser.add_argument("--tokens", type=int, default=512, help="per sample")
    parser.add_argument("--rank", type=int, default=16)
    parser.add_argument("--dropout", type=float, default=0.05)
    parser.add_argument("--dtype", choices=("bfloat16", "float32", "float16"), default="bfloat16")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--rounds", type=int, default=11)
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
    device = device_of(options.device)
    tokens = options.batch * options.tokens
    name = options.name or f"step-{options.model}-{tokens}-{options.dtype}-r{options.rank}-p{options.dropout:g}"
    results.write(f"{name}-{device}", device, vars(options), measured)


def measure(options: argparse.Namespace) -> dict[str, list[float]]:
    """Seconds of every arm in every round. All arms share one set of frozen weights."""
    device, dtype = device_of(options.device), getattr(torch, options.dtype)
    weights = llama(options.model, dtype, device, options.layers).state_dict()
    steps = {}
    for arm in options.arms:
        with torch.device("meta"):
            base = llama(options.model, dtype, "meta", options.layers)
        base.load_state_dict(weights, assign=True)
        base.model.rotary_emb = type(base.model.rotary_emb)(base.config).to(device)  # its buffers are in no state dict
        model = attach(arm, base, r=options.rank, p=options.dropout, targets=TARGETS).train()
        steps[arm] = training_step(model, options.batch, options.tokens, device)
    with Progress() as progress:
        task = progress.add_task("rounds", total=options.rounds + 1)
        return interleave(steps, options.rounds, lambda: progress.advance(task))


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
