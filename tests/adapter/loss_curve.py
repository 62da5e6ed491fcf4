"""A short training run, the same code for MoSLoRA here and for stock PEFT in a process without moslora."""

from collections.abc import Callable

import torch
from peft import LoraConfig, get_peft_model
from torch import nn


def loss_curve(
    base: nn.Module,
    config: LoraConfig,
    prepare: Callable[[nn.Module], None] = lambda model: None,
    device: str = "cpu",
) -> list[float]:
    """Loss of each of 20 AdamW steps on random words, seeded."""
    torch.manual_seed(7)
    model = get_peft_model(base.to(device), config).train()
    prepare(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    draw, losses = torch.Generator().manual_seed(1), []
    for _ in range(20):
        ids = torch.randint(1, 60, (4, 9), generator=draw).to(device)
        loss = model(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses
