"""One training loop for all parts; it can be stopped at any time and goes on where it was."""

import os
from collections.abc import Callable
from pathlib import Path

import torch
from rich.progress import track
from torch import Tensor, nn

from ..muon import Muon

WARMUP_STEPS = 30
DECAY = 0.2  # share of the steps at the end over which the learning rates fall to 0
LARGEST_NORM = 1.0  # of the gradient
SAVE_EVERY = 25  # steps


class Loop:
    """Trains some modules together: their matrices and kernels with Muon, the rest with AdamW.

    Args:
        modules: name -> module.
        steps: in all.
        rates: learning rates of Muon and of AdamW.
        state: file that holds everything needed to go on.
    """

    def __init__(self, modules: dict[str, nn.Module], steps: int, rates: tuple[float, float], state: Path) -> None:
        self.modules = nn.ModuleDict(modules)
        self.steps = steps
        self.state = state
        self.step = 0
        named = [(name, weight) for name, weight in self.modules.named_parameters() if weight.requires_grad]
        matrices = [weight for name, weight in named if weight.ndim > 1 and "embeddings" not in name]
        others = [weight for name, weight in named if weight.ndim == 1 or "embeddings" in name]
        self.optimizers: list[torch.optim.Optimizer] = [
            Muon(matrices, rates[0]),
            torch.optim.AdamW(others, lr=rates[1], betas=(0.9, 0.98), weight_decay=0.0),
        ]
        self.schedules = [torch.optim.lr_scheduler.LambdaLR(each, self._share) for each in self.optimizers]
        if state.exists():
            self._restore()

    def run(self, loss: Callable[[int], Tensor], name: str) -> None:
        """Do all steps that are left; `loss` takes the number of the step and decides what is learned in it."""
        for step in track(range(self.step, self.steps), name):
            value = loss(step)
            value.backward()
            torch.nn.utils.clip_grad_norm_(self.modules.parameters(), LARGEST_NORM)
            for optimizer, schedule in zip(self.optimizers, self.schedules, strict=True):
                optimizer.step()
                optimizer.zero_grad()
                schedule.step()
            self.step = step + 1
            if self.step % SAVE_EVERY == 0 or self.step == self.steps:
                self._save(value.item())
        self.modules.eval()

    def _share(self, step: int) -> float:
        """Share of the learning rate: up, level, down to 0."""
        return min(1.0, (step + 1) / WARMUP_STEPS, (self.steps - step) / (DECAY * self.steps))

    def _save(self, loss: float) -> None:
        """Write the state beside the old one, then in its place."""
        print(f"step {self.step}: loss {loss:.4f}", flush=True)
        beside = self.state.with_suffix(".new")
        torch.save(
            {
                "step": self.step,
                "modules": self.modules.state_dict(),
                "optimizers": [each.state_dict() for each in self.optimizers],
                "schedules": [each.state_dict() for each in self.schedules],
            },
            beside,
        )
        os.replace(beside, self.state)

    def _restore(self) -> None:
        saved = torch.load(self.state, weights_only=True)
        self.step = saved["step"]
        self.modules.load_state_dict(saved["modules"])
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        for schedule, state in zip(self.schedules, saved["schedules"], strict=True):
            schedule.load_state_dict(state)
