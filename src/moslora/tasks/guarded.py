"""transformers' Trainer that updates nothing from a loss or gradient that is not a number, and says whose it was."""

import warnings
from collections.abc import Sequence
from typing import Any

import torch
import transformers
from torch import Tensor

from .. import runs
from ..errors import MoSLoRAWarning, RunError
from ..resume import Checkpoints
from .batches import ROWS, without_rows
from .stopping import any_process

SHOWN = 20  # of them in a message


class GuardedTrainer(transformers.Trainer):
    """Trainer for batches with `ROWS`, which it keeps with their losses until the next update."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.since_update: list[tuple[Tensor, Tensor]] = []
        super().__init__(*args, **kwargs)

    def compute_loss(self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, **kwargs: Any) -> Any:
        """The loss; `ROWS` are taken out of the inputs."""
        rows = inputs[ROWS]
        outcome = super().compute_loss(model, without_rows(inputs), return_outputs=return_outputs, **kwargs)
        if model.training:
            loss = outcome[0] if return_outputs else outcome
            self.since_update.append((rows, loss.detach()))
        return outcome


class NonFiniteGuard(transformers.TrainerCallback):
    """Looks at losses and gradients before every update.

    Args:
        run: an open run.
        trainer: whose callback this is.
        skip: leave such updates out, count them in run.json and warn, instead of raising RunError.
    """

    def __init__(self, run: runs.Run, trainer: GuardedTrainer, skip: bool) -> None:
        self.run, self.trainer, self.skip = run, trainer, skip

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Forget what is counted of steps that are about to be done again."""
        forget_skipped(self.run, state.global_step)

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Refuse or skip the update."""
        seen, self.trainer.since_update = self.trainer.since_update, []
        bad = [rows for rows, loss in seen if not torch.isfinite(loss)]
        scaled = self.trainer.accelerator.scaler is not None  # it expects such gradients, and skips their updates
        sound = not bad and (scaled or finite_gradients(self.trainer.model.parameters()))
        if not any_process(not sound):
            return
        rows = sorted({int(row) for part in bad or [rows for rows, _ in seen] for row in part})
        what = f"{'loss' if bad or sound else 'gradient'} is not a finite number"
        if not self.skip or self.trainer.is_deepspeed_enabled:
            whose = f"samples {shown(rows)} (counted from 0 over the training files)"
            raise refusal(self.run, state.global_step + 1, what, whose)
        skip_update(self.run, state.global_step + 1, what, rows)
        self.trainer.optimizer.zero_grad(set_to_none=True)  # what has no gradient is not moved


def finite_gradients(parameters: Any) -> bool:
    """Whether every gradient is finite. One look at the device for all of them."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return True
    return bool(torch.isfinite(torch.stack([norm.cpu() for norm in torch._foreach_norm(gradients)])).all())


def refusal(run: runs.Run, step: int, what: str, whose: str) -> RunError:
    """The error of a step that cannot be made.

    Args:
        run: an open run.
        step: from 1.
        what: for example "loss is not a finite number".
        whose: the samples of the step.
    """
    sound = Checkpoints(run.folder).complete()
    last = f"The last good checkpoint is {sound[-1]}." if sound else "There is no checkpoint yet."
    return RunError(
        f"The {what} at step {step}, for {whose}. Training stopped before the update. {last} Look at these samples, or "
        "try a lower learning rate, more warm-up steps, or --dtype bfloat16 or float32. The same command with "
        "--skip-nonfinite goes on and leaves such updates out."
    )


def skip_update(run: runs.Run, step: int, what: str, samples: Sequence[int | str]) -> None:
    """Warn of an update that is left out, and write it into run.json."""
    run.record.setdefault("skipped_updates", []).append({"step": step, "samples": list(samples)})
    run.save()
    warnings.warn(
        f"The {what} at step {step}, for samples {shown(samples)}: this update was left out.",
        MoSLoRAWarning,
        stacklevel=2,
    )


def forget_skipped(run: runs.Run, done: int) -> None:
    """Drop from run.json the skipped updates of steps after `done`."""
    if skipped := [each for each in run.record.pop("skipped_updates", []) if each["step"] <= done]:
        run.record["skipped_updates"] = skipped


def shown(samples: Sequence[Any]) -> str:
    """The first of the samples, as text."""
    more = f" and {len(samples) - SHOWN} more" if len(samples) > SHOWN else ""
    return ", ".join(map(str, samples[:SHOWN])) + more
