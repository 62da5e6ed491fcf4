"""transformers' Trainer that updates nothing from a loss or gradient that is not a number, and says whose it was."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from .. import runs
from ..errors import MoSLoRAWarning, RunError
from ..resume import Checkpoints
from .batches import ROWS, without_rows
from .processes import any_process

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
        skip: leave such updates out instead of stopping.
    """

    def __init__(self, run: runs.Run, trainer: GuardedTrainer, skip: bool) -> None:
        self.run, self.trainer, self.skip = run, trainer, skip

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Refuse or skip the update."""
        seen, self.trainer.since_update = self.trainer.since_update, []
        leave_out = is_left_out(
            self.run,
            state.global_step + 1,
            bad=[int(row) for rows, loss in seen if not torch.isfinite(loss) for row in rows],
            seen=[int(row) for rows, _ in seen for row in rows],
            whose="samples {} (counted from 0 over the training files)",
            parameters=self.trainer.model.parameters(),
            scaled=self.trainer.accelerator.scaler is not None,
            skip=self.skip and not self.trainer.is_deepspeed_enabled,  # which keeps the gradients to itself
        )
        if leave_out:
            self.trainer.optimizer.zero_grad(set_to_none=True)  # what has no gradient is not moved


def is_left_out(
    run: runs.Run,
    step: int,
    *,
    bad: Sequence[int | str],
    seen: Sequence[int | str],
    whose: str,
    parameters: Iterable[nn.Parameter],
    scaled: bool,
    skip: bool,
) -> bool:
    """Whether an update has to be left out, with a warning and a line in run.json; the same in all processes.

    Args:
        run: an open run.
        step: from 1.
        bad: samples of this process whose loss is not a number.
        seen: all its samples since the last update.
        whose: says what samples are, with {} for them.
        parameters: that have gradients, behind the backward pass.
        scaled: whether a gradient scaler is at work, which expects such gradients and skips their updates itself.
        skip: leave it out instead of stopping.

    Raises:
        RunError: it has to be, and `skip` does not allow it.
    """
    sound = not bad and (scaled or finite_gradients(parameters))
    if not any_process(not sound):
        return False
    what = f"{'loss' if bad or sound else 'gradient'} is not a finite number at step {step}"
    samples = sorted({*(bad or seen)})
    whose = whose.format(_shown(samples))
    if not skip:
        raise _refusal(run, what, whose)
    run.record.setdefault("skipped_updates", []).append({"step": step, "samples": samples})
    run.save()
    warnings.warn(f"The {what}, for {whose}: this update was left out.", MoSLoRAWarning, stacklevel=2)
    return True


def finite_gradients(parameters: Iterable[nn.Parameter]) -> bool:
    """Whether every gradient is finite. One look at the device for all of them."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return True
    return bool(torch.isfinite(torch.stack([norm.cpu() for norm in torch._foreach_norm(gradients)])).all())


def _refusal(run: runs.Run, what: str, whose: str) -> RunError:
    complete = Checkpoints(run.folder).complete()
    last = f"The last good checkpoint is {complete[-1]}." if complete else "There is no checkpoint yet."
    return RunError(
        f"The {what}, for {whose}. Training stopped before the update. {last} Look at these samples, or try a lower "
        "learning rate, more warm-up steps, or --dtype bfloat16 or float32. The same command with --skip-nonfinite "
        "goes on and leaves such updates out."
    )


def _shown(samples: Sequence[int | str]) -> str:
    more = f" and {len(samples) - SHOWN} more" if len(samples) > SHOWN else ""
    return ", ".join(map(str, samples[:SHOWN])) + more
