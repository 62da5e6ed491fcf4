"""The training loop: accelerate for precision and processes, everything else in plain sight."""

import math
from collections.abc import Callable
from typing import Any

import torch
import transformers
from accelerate import Accelerator
from accelerate.state import AcceleratorState

from ... import runs
from ...resume import Checkpoints
from ..failures import explained
from ..guarded import is_left_out
from ..progress import progress_bar
from ..stopping import StopSignals
from ..trainer import newest_sound_checkpoint
from .attach import Adapted, create_optimizer, trained
from .checkpoints import load_checkpoint, save_checkpoint
from .config import SubjectTrainConfig
from .objective import Objective
from .pictures import MicroBatch, PictureSet, micro_batches

PRECISIONS = {torch.float32: "no", torch.bfloat16: "bf16", torch.float16: "fp16"}


def new_accelerator(dtype: torch.dtype) -> Accelerator:
    """accelerate for a computation in this dtype, on the GPU if there is one."""
    AcceleratorState._reset_state()  # of an earlier run in this process, whose precision it would keep
    # Unless it is told of a CPU, accelerate there takes each of several processes for the only one.
    return Accelerator(mixed_precision=PRECISIONS[dtype], cpu=not torch.accelerator.is_available())


class Loop:
    """Trains the adapters of a run, from its newest complete checkpoint on.

    Every process sees its share of each step's pictures and holds the adapters whole. Gradients are added up by hand,
    since the number of forward passes may differ: pictures of another size need one of their own.

    Args:
        config: all settings.
        objective: the loss.
        adapted: the trained networks.
        sets: pictures of the subject, and of its class if there are any.
        run: an open run.
        accelerator: as `new_accelerator` makes it.
    """

    def __init__(
        self,
        config: SubjectTrainConfig,
        objective: Objective,
        adapted: Adapted,
        sets: list[PictureSet],
        run: runs.Run,
        accelerator: Accelerator,
    ) -> None:
        self.config = config
        self.objective = objective
        self.sets = sets
        self.run = run
        self.accelerator = accelerator
        self.parameters = trained(adapted)
        self.plain_optimizer = create_optimizer(adapted, config)
        self.optimizer = accelerator.prepare_optimizer(self.plain_optimizer)
        self.scheduler = transformers.get_scheduler(
            config.lr_scheduler, self.plain_optimizer, config.warmup_steps, config.max_steps
        )

    def fit(self, after_step: Callable[[int], Any]) -> int:
        """Train to the end.

        Args:
            after_step: called with the number of steps done, at the start and after each step.

        Returns:
            the steps of the whole run.

        Raises:
            RunError: a loss or gradient is not a number, or memory or disk ran out.
            CheckpointError: a sound checkpoint cannot be used.
            Stopped: a signal asked for it.
        """
        done = self._resume()
        with StopSignals() as signals, explained(self.config, self.run.folder):
            return self._train(done, after_step, signals)

    def _train(self, done: int, after_step: Callable[[int], Any], signals: StopSignals) -> int:
        total = self.config.max_steps
        logged: list[dict[str, float]] = []
        with progress_bar() as bar:
            task = bar.add_task("train", total=total, completed=done, note="")
            after_step(done)
            while done < total:
                if means := self._step(done):
                    logged.append(means)
                done += 1
                if done % self.config.logging_steps == 0 or done == total:
                    row = self._log(done, logged)
                    logged.clear()
                    if "loss" in row:
                        bar.update(task, note=f"loss {row['loss']:.4f}", refresh=True)
                bar.update(task, completed=done)
                after_step(done)
                if done < total:
                    stops = signals.wanted()
                    if stops or done % self.config.save_steps == 0:
                        self._save(done)
                    if stops:
                        signals.stop(done)
        return done

    def micro_batches(self, step: int, *, whole: bool = False) -> list[tuple[PictureSet, MicroBatch]]:
        """What this process computes in a step, 0 being the first; what all of them do, if `whole`."""
        process, processes = (0, 1) if whole else (self.accelerator.process_index, self.accelerator.num_processes)
        return [
            (pictures, batch)
            for pictures in self.sets
            for batch in micro_batches(
                pictures,
                step,
                seed=self.config.seed,
                batch_size=self.config.batch_size,
                micro_batch_size=self.config.micro_batch_size,
                timesteps=self.objective.timesteps,
                noise_offset=self.config.noise_offset,
                process=process,
                processes=processes,
            )
        ]

    def _step(self, step: int) -> dict[str, float] | None:
        """One optimizer step: its loss in all, that of each set and the gradient's norm; None if it is left out."""
        self.optimizer.zero_grad(set_to_none=True)
        self.objective.train()
        sums = {pictures.stream: 0.0 for pictures in self.sets}
        bad, seen = list[str](), list[str]()
        batches = self.micro_batches(step)
        idle_passes = self._most_passes(len(batches)) - len(batches)
        for number, (pictures, batch) in enumerate(batches):
            place = f"dropout/{step}/{self.accelerator.process_index}/{number}"
            torch.manual_seed(runs.stream_seed(self.config.seed, place))
            with self.accelerator.autocast():
                losses = self.objective(**batch._asdict()).losses
            names = [pictures.names[index] for index in batch.indices]
            seen += names
            bad += [name for name, loss in zip(names, losses, strict=True) if not loss.isfinite()]
            sums[pictures.stream] += losses.detach().sum().item() / self.config.batch_size
            self.accelerator.backward(pictures.weight * losses.sum() / self.config.batch_size)
        for _ in range(idle_passes):
            with self.accelerator.autocast():
                self.accelerator.backward(0.0 * self.objective(**batch._asdict()).loss)
        self._add_up_gradients()
        norm = self.accelerator.clip_grad_norm_(self.parameters.values(), self.config.max_grad_norm or math.inf)
        left_out = is_left_out(
            self.run,
            step + 1,
            bad=bad,
            seen=seen,
            whose="{}",
            parameters=self.parameters.values(),
            scaled=self.accelerator.scaler is not None,
            skip=self.config.skip_nonfinite,
        )
        if left_out:
            self.optimizer.zero_grad(set_to_none=True)
        self.optimizer.step()
        self.scheduler.step()
        if left_out:
            return None
        weights = {pictures.stream: pictures.weight for pictures in self.sets}
        sums = self._over_processes(sums)
        loss = sum(weights[stream] * value for stream, value in sums.items())
        return {"loss": loss, **{f"{stream}_loss": value for stream, value in sums.items()}, "grad_norm": float(norm)}

    def _most_passes(self, own: int) -> int:
        """Forward passes that this process has to take part in: under FSDP2 each needs the weights of all processes."""
        if not self.accelerator.is_fsdp2:
            return own
        return int(self.accelerator.gather(torch.tensor([own], device=self.accelerator.device)).max())

    def _add_up_gradients(self) -> None:
        """Give every process the sum of all gradients, in one message."""
        if self.accelerator.num_processes == 1:
            return
        parameters = list(self.parameters.values())
        own = [torch.zeros_like(each) if each.grad is None else each.grad for each in parameters]
        summed = self.accelerator.reduce(torch.cat([each.flatten() for each in own]), reduction="sum")
        for parameter, part in zip(parameters, summed.split([each.numel() for each in own]), strict=True):
            parameter.grad = part.view_as(parameter)

    def _over_processes(self, sums: dict[str, float]) -> dict[str, float]:
        if self.accelerator.num_processes == 1:
            return sums
        values = torch.tensor(list(sums.values()), device=self.accelerator.device)
        return dict(zip(sums, self.accelerator.reduce(values, reduction="sum").tolist(), strict=True))

    def _log(self, done: int, logged: list[dict[str, float]]) -> dict[str, float]:
        """Write down the means over the steps since the last line, and the learning rate of the last one."""
        row: dict[str, float] = {}
        if logged:
            row = {key: sum(each[key] for each in logged) / len(logged) for key in logged[0]}
            if len(self.sets) == 1:
                del row[f"{self.sets[0].stream}_loss"]
            row["grad_norm"] = logged[-1]["grad_norm"]
        seen = done * self.config.batch_size / len(self.sets[0].names)
        rate = self.scheduler.get_last_lr()[0]
        self.run.log({"step": done, "epoch": round(seen, 6), **row, "learning_rate": rate})
        return row

    def _save(self, done: int) -> None:
        if self.accelerator.is_main_process:
            scaler = self.accelerator.scaler
            save_checkpoint(
                Checkpoints(self.run.folder).folder(done),
                self.parameters,
                step=done,
                optimizer=self.plain_optimizer.state_dict(),
                scheduler=self.scheduler.state_dict(),
                scaler=scaler.state_dict() if scaler else None,
            )
            Checkpoints(self.run.folder).seal(done, self.config.checkpoint_limit)
        self.accelerator.wait_for_everyone()

    def _resume(self) -> int:
        """Steps that are done already."""
        found = newest_sound_checkpoint(self.run)
        states: dict[str, Any] = {"step": 0}
        if found:
            states = load_checkpoint(found, self.parameters)
            self.plain_optimizer.load_state_dict(states["optimizer"])
            self.scheduler.load_state_dict(states["scheduler"])
            if states["scaler"] and self.accelerator.scaler:
                self.accelerator.scaler.load_state_dict(states["scaler"])
        if self.run.resumed:
            self.run.rewind(states["step"])
        return int(states["step"])
