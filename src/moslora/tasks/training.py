"""From the settings of a run to transformers' Trainer, and from a trained one to the run folder."""

import itertools
import os
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset

from .. import methods, runs
from ..adapter import awaits_gradient, initialize_mixer, kernels_used
from ..errors import ConfigError
from .batches import without_rows
from .guarded import GuardedTrainer
from .launch import announce, deepspeed_config
from .models import resolve_dtype
from .settings import AdapterSettings, TrainerSettings
from .sharded import name_layers
from .trainer import fit, save_trained

GRADIENT_SAMPLES = 64  # that init_mixer="gradient" looks at, the first of the run
STREAMS = ("init", "data", "dropout")


def seeds(config: AdapterSettings) -> dict[str, int]:
    """The seed of a run and of each of its streams."""
    return {"run": config.seed} | {stream: runs.stream_seed(config.seed, stream) for stream in STREAMS}


def method_input(method: str) -> dict[str, str]:
    """What a run records of a method that a file describes: the hash of the file; nothing of other methods."""
    if not method.startswith(methods.FILE):
        return {}
    return {"method": runs.file_sha256(Path(method.removeprefix(methods.FILE)))}


def refuse_dtype(config: AdapterSettings) -> None:
    """Raise ConfigError for float16 without a GPU."""
    if config.dtype == "float16" and not torch.cuda.is_available():
        raise ConfigError("dtype float16 needs a GPU, and none was found: choose --dtype float32 or bfloat16.")


def build_trainer(
    config: TrainerSettings,
    adapted: torch.nn.Module,
    train: "Dataset[Any]",
    validation: "Dataset[Any] | None",
    collator: Any,
    checkpoints: Path,
    *,
    trainer_class: type[GuardedTrainer] = GuardedTrainer,
    **changes: Any,
) -> GuardedTrainer:
    """A Trainer with what the method needs beside a model.

    Args:
        config: all settings.
        adapted: what `methods.attach` returned.
        train: samples as the collator takes them.
        validation: the same; None if none are held out.
        collator: list of samples -> batch of tensors, with `batches.ROWS`.
        checkpoints: RUN/checkpoints.
        trainer_class: GuardedTrainer or a subclass.
        changes: settings of transformers.TrainingArguments beyond those that follow from `config`.

    Raises:
        ConfigError: settings that exclude each other.
    """
    arguments = _arguments(config, checkpoints, **changes)
    methods.share_penalty(adapted, config.batch_size // config.micro_batch_size)
    callbacks = []
    if methods.allocates_ranks(adapted):
        if config.keep_best:
            raise ConfigError("This AdaLoRA cannot be loaded from a checkpoint, so keep_best has none to keep.")
        # A checkpoint could not be resumed. Without any, an interrupted run begins again, with the same result.
        arguments.save_strategy = transformers.trainer_utils.SaveStrategy.NO
        callbacks.append(methods.AllocateRanks(adapted))
    trainer = trainer_class(
        model=adapted,
        args=arguments,
        train_dataset=train,
        eval_dataset=validation,
        data_collator=collator,
        callbacks=callbacks,
    )
    name_layers(trainer.accelerator, adapted)
    optimizer_class, settings = trainer.get_optimizer_cls_and_kwargs(arguments)
    trainer.optimizer = methods.create_optimizer(
        adapted, config.method, optimizer_class, weight_decay=config.weight_decay, **settings
    )
    return trainer


def train_and_save(config: TrainerSettings, trainer: GuardedTrainer, run: runs.Run, processing: Any) -> None:
    """Initialise what waits for data, train to the end, and fill the run folder and its record.

    Args:
        config: all settings.
        trainer: what `build_trainer` returned.
        run: an open run.
        processing: tokenizer or processor, saved beside a model that was trained as a whole.
    """
    announce(run, trainer.accelerator, config.batch_size)
    if awaits_gradient(trainer.model):
        with torch.random.fork_rng():
            initialize_mixer(trainer.model, map(without_rows, _first_batches(config, trainer)))
    steps = fit(trainer, run, config)
    save_trained(trainer, run.folder, processing)
    losses = [row["loss"] for row in runs.read_rows(run.folder / "metrics.jsonl") if "loss" in row]
    run.record |= {"kernels": kernels_used(trainer.model), "steps": steps, "final_loss": losses[-1] if losses else None}


def _first_batches(config: TrainerSettings, trainer: transformers.Trainer) -> list[Any]:
    """The first batches of the run in every process: all of them, not the share of this one."""
    passes = -(-GRADIENT_SAMPLES // (config.micro_batch_size * trainer.accelerator.num_processes))
    own = list(itertools.islice(trainer.get_train_dataloader(), passes))
    shares = [own]
    if trainer.accelerator.num_processes > 1:
        shares = [[] for _ in range(trainer.accelerator.num_processes)]
        torch.distributed.all_gather_object(shares, own)
    # In the order in which one process would meet them.
    return [batch for group in itertools.zip_longest(*shares) for batch in group if batch is not None]


def _arguments(config: TrainerSettings, checkpoints: Path, **changes: Any) -> transformers.TrainingArguments:
    """The settings in the words of transformers' Trainer."""
    dtype = resolve_dtype(config.dtype)
    evaluation = "steps" if config.validation_size else "no"
    settings: dict[str, Any] = {
        "output_dir": str(checkpoints),
        "per_device_train_batch_size": config.micro_batch_size,
        "per_device_eval_batch_size": config.micro_batch_size,
        "gradient_accumulation_steps": _accumulation(config),
        "num_train_epochs": config.epochs,
        "max_steps": config.max_steps or -1,
        "learning_rate": config.learning_rate,
        "lr_scheduler_type": config.lr_scheduler,
        "warmup_steps": config.warmup_steps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "optim": "adamw_torch",
        "use_cpu": not torch.accelerator.is_available(),  # otherwise bfloat16 would be refused there
        "bf16": dtype == torch.bfloat16,
        "fp16": dtype == torch.float16,
        "gradient_checkpointing": config.gradient_checkpointing,
        "seed": runs.stream_seed(config.seed, "dropout"),
        "data_seed": runs.stream_seed(config.seed, "data"),
        "full_determinism": config.deterministic,
        "logging_steps": config.logging_steps,
        "logging_nan_inf_filter": config.skip_nonfinite,
        "remove_unused_columns": False,  # the model's own arguments are not all that a batch holds
        "eval_strategy": evaluation,
        "eval_steps": config.save_steps,
        "save_strategy": "steps",
        "save_steps": config.save_steps,
        "load_best_model_at_end": config.keep_best,
        "metric_for_best_model": "loss" if config.keep_best else None,
        "report_to": config.report_to,
        "disable_tqdm": True,
        "deepspeed": deepspeed_config(config.deepspeed) if config.deepspeed else None,
        "dataloader_pin_memory": torch.cuda.is_available(),
    }
    arguments = transformers.TrainingArguments(**settings | changes)
    # One process drives one GPU. Otherwise Trainer would spread over all it sees and multiply the batch size.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _accumulation(config: TrainerSettings) -> int:
    """Forward passes of one process per optimizer step."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    passes, rest = divmod(config.batch_size, config.micro_batch_size * processes)
    if rest:
        raise ConfigError(
            f"batch_size {config.batch_size} cannot be split over {processes} processes in micro-batches of "
            f"{config.micro_batch_size}: choose a multiple of {config.micro_batch_size * processes}."
        )
    return passes
