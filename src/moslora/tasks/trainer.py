"""What every run under transformers' Trainer needs: live metrics, checkpoints that can be trusted, exact resume."""

import json
import shutil
from pathlib import Path
from typing import Any

import peft
import safetensors.torch
import transformers
from transformers.trainer_callback import PrinterCallback
from transformers.trainer_utils import SaveStrategy

from .. import runs
from ..checkpoint import EXPORTABLE_TYPES, export_adapter
from ..errors import CheckpointError
from ..resume import Checkpoints
from . import zero
from .failures import explained
from .guarded import GuardedTrainer, NonFiniteGuard
from .processes import wait_for_all
from .progress import progress_bar
from .settings import TrainerSettings
from .stopping import StopSignals

ADAPTER_WEIGHTS = "adapter_model.safetensors"


class RunCallback(transformers.TrainerCallback):
    """Writes metrics.jsonl, marks complete checkpoints, and removes old ones only once a newer one is complete."""

    def __init__(self, run: runs.Run, checkpoint_limit: int) -> None:
        self.run = run
        self.checkpoint_limit = checkpoint_limit

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Write losses down."""
        logs = logs or {}
        row = {"step": state.global_step, "epoch": round(state.epoch or 0.0, 6)}
        if "loss" in logs:
            self.run.log({**row, **{key: logs.get(key) for key in ("loss", "learning_rate", "grad_norm")}})
        elif "eval_loss" in logs:
            self.run.log({**row, "validation_loss": logs["eval_loss"]})

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Mark the checkpoint that was just written as complete, then rotate."""
        wait_for_all()  # every process has written its part
        if not runs.is_main_process():
            return
        Checkpoints(self.run.folder).seal(state.global_step, self.checkpoint_limit, keep=state.best_model_checkpoint)


class ProgressCallback(transformers.TrainerCallback):
    """A bar on stderr with the latest losses."""

    def __init__(self) -> None:
        self.bar = progress_bar()
        self.notes: dict[str, str] = {}

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Show the bar, at the step a resumed run has reached."""
        self.bar.start()
        self.task = self.bar.add_task("train", total=state.max_steps, completed=state.global_step, note="")

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Move the bar."""
        self.bar.update(self.task, completed=state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Show the loss."""
        names = {"loss": "loss", "eval_loss": "validation"}
        self.notes |= {names[key]: f"{value:.4f}" for key, value in (logs or {}).items() if key in names}
        note = " ".join(f"{name} {value}" for name, value in self.notes.items())
        self.bar.update(self.task, note=note, refresh=True)

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Leave the finished bar on the screen."""
        self.bar.stop()


class StopCallback(transformers.TrainerCallback):
    """Ends training after a step, with a checkpoint of it, once a signal asks for that."""

    def __init__(self, signals: StopSignals) -> None:
        self.signals = signals
        self.stopped = self.saves = False

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Stop, unless this was the last step anyway."""
        if self.signals.wanted() and state.global_step < state.max_steps:
            self.saves = args.save_strategy != SaveStrategy.NO
            self.stopped = control.should_training_stop = True
            control.should_save |= self.saves


def fit(trainer: GuardedTrainer, run: runs.Run, config: TrainerSettings) -> int:
    """Train to the end, from the newest sound checkpoint if the run was interrupted.

    Args:
        trainer: with a PEFT model, and RUN/checkpoints as its output folder. It must save by steps and keep all
            checkpoints: this function rotates them.
        run: an open run.
        config: all settings.

    Returns:
        the optimizer steps of the whole run.

    Raises:
        RunError: the loss or the gradient is not a number, or memory or disk ran out.
        CheckpointError: a sound checkpoint cannot be read.
        Stopped: a signal asked for it.
    """
    progress, signals = ProgressCallback(), StopSignals()
    stop = StopCallback(signals)
    trainer.remove_callback(PrinterCallback)
    guard = NonFiniteGuard(run, trainer, config.skip_nonfinite)
    for callback in (RunCallback(run, config.checkpoint_limit), guard, stop, progress):
        trainer.add_callback(callback)
    checkpoint = newest_sound_checkpoint(run)
    state = _read_state(checkpoint) if checkpoint else {"global_step": 0}
    if run.resumed:
        run.rewind(state["global_step"])
    if checkpoint:
        zero.fit_to_world(checkpoint, trainer.accelerator)
    try:
        if checkpoint is None or state["global_step"] < state["max_steps"]:
            with signals, explained(config, run.folder):
                trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
            if stop.stopped:
                signals.stop(trainer.state.global_step, checkpoint=stop.saves)
            return trainer.state.global_step
        # All steps were done: one more, as Trainer would add, would change the result.
        _load_weights(trainer.model, Path(str(state.get("best_model_checkpoint") or checkpoint)))
        return state["global_step"]
    finally:
        progress.bar.stop()


def newest_sound_checkpoint(run: runs.Run) -> Path | None:
    """The checkpoint that all processes go on from. Half-written ones are removed, damaged ones set aside."""
    checkpoints = Checkpoints(run.folder)
    checkpoints.drop_unfinished()
    checkpoints.set_damaged_aside()
    wait_for_all()
    complete = checkpoints.complete()
    return complete[-1] if complete else None


def save_trained(trainer: transformers.Trainer, folder: Path, processing: Any) -> None:
    """Write FOLDER/adapter as PEFT saves it and, if there is one, FOLDER/lora, the equal plain LoRA.

    Without an adapter, FOLDER/model is written instead, a model folder of transformers with its tokenizer or processor.

    Raises:
        CheckpointError: the plain LoRA, read back, is not equal.
    """
    adapted = isinstance(trainer.model, peft.PeftModel)
    name = "adapter" if adapted else "model"
    unfinished = folder / f"{name}.unfinished"
    # Every process takes part, where the weights are spread.
    if adapted and trainer.is_deepspeed_enabled:
        state = zero.float32_state(trainer.model)  # Trainer would save the rounded numbers of the computation
        if runs.is_main_process():
            trainer.model.save_pretrained(unfinished, state_dict=state)
    else:
        trainer.save_model(str(unfinished))
    if not runs.is_main_process():
        return
    (unfinished / "training_args.bin").unlink(missing_ok=True)  # a pickle; run.json says it all
    if not adapted:
        processing.save_pretrained(unfinished)
    for old in (name, "lora"):
        shutil.rmtree(folder / old, ignore_errors=True)
    unfinished.rename(folder / name)
    has_layers = any(".lora_" in parameter for parameter, _ in trainer.model.named_parameters())
    if adapted and has_layers and trainer.model.active_peft_config.peft_type in EXPORTABLE_TYPES:
        export_adapter(folder / "adapter", folder / "lora", format="peft")


def _load_weights(model: Any, checkpoint: Path) -> None:
    """Load what was trained, from a checkpoint of Trainer."""
    if zero.parts(checkpoint):
        model.load_state_dict(zero.trained_state(checkpoint), strict=False)
    elif isinstance(model, peft.PeftModel):
        peft.set_peft_model_state_dict(model, safetensors.torch.load_file(checkpoint / ADAPTER_WEIGHTS))
    else:
        model.load_state_dict(type(model).from_pretrained(checkpoint).state_dict())


def _read_state(checkpoint: Path) -> dict[str, Any]:
    try:
        return json.loads((checkpoint / "trainer_state.json").read_text())
    except (OSError, ValueError) as error:
        raise CheckpointError(
            f"Checkpoint {checkpoint} is marked complete but cannot be read: {error}. Remove it to resume from the "
            "one before it."
        ) from error
