"""Fine-tune a causal language model on commonsense questions, with transformers' Trainer."""

import dataclasses
import itertools
import os
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import transformers

from ... import methods, runs
from ...adapter import awaits_gradient, initialize_mixer, kernels_used
from ...errors import ConfigError, MoSLoRAWarning
from .. import trainer as training
from . import model, samples
from .attach import adapter_config, attach_adapter, match_rank
from .config import CommonsenseTrainConfig, check
from .training_set import TrainingSet, load_training_set

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TASK = "commonsense"
GRADIENT_SAMPLES = 64  # that init_mixer="gradient" looks at, the first of the run
STREAMS = ("init", "data", "dropout")


def train(config: CommonsenseTrainConfig, out: Path) -> dict[str, Any]:
    """Train, or resume, and fill the run folder.

    Args:
        config: all settings.
        out: the run folder: new, empty, or of an unfinished run with the same config.

    Returns:
        the content of run.json.

    Raises:
        ConfigError: a setting, model or method that cannot be used.
        DataError: a training file that cannot be used.
        RunError: a run folder in the wrong state, or a loss that is not a number.
    """
    check(config)
    adapter_config(config)
    if config.dtype == "float16" and not torch.cuda.is_available():
        raise ConfigError("dtype float16 needs a GPU, and none was found: choose --dtype float32 or bfloat16.")
    found = load_data(config)
    base_config = model.load_config(config.model, config.trust_remote_code)
    inputs: dict[str, Any] = {"model": model.identity(config.model, base_config), **found.inputs}
    if config.method.startswith(methods.FILE):
        inputs["method"] = runs.file_sha256(Path(config.method.removeprefix(methods.FILE)))
    matched = match_rank(config, base_config)
    seeds = {"run": config.seed} | {stream: runs.stream_seed(config.seed, stream) for stream in STREAMS}
    with runs.Run.open(out, task=TASK, config=dataclasses.asdict(config), inputs=inputs, seeds=seeds) as run:
        if runs.is_main_process():
            runs.write_json(out / "data.json", found.facts)
        if config.match:
            run.record["matched"] = {"method": config.match, "rank": matched.rank, "alpha": matched.alpha}
        _train(matched, found, run)
    return run.record


def load_data(config: CommonsenseTrainConfig) -> TrainingSet:
    """`load_training_set` of the settings, with a warning of an overlap that stays."""
    found = load_training_set(
        config.data,
        columns=config.columns,
        expected_samples=config.expected_samples,
        overlap_with=config.overlap_with,
        drop_overlap=config.drop_overlap,
    )
    if found.facts["overlapping"] and not config.drop_overlap:
        warnings.warn(
            f"{found.facts['overlapping']:,} of {found.facts['samples']:,} training samples ask a question of the "
            f"tests in {config.overlap_with}. --drop-overlap removes them.",
            MoSLoRAWarning,
            stacklevel=2,
        )
    return found


def _train(config: CommonsenseTrainConfig, found: TrainingSet, run: runs.Run) -> None:
    tokenizer = model.load_tokenizer(config.model, config.trust_remote_code)
    split = samples.prepare(
        found.items,
        tokenizer,
        prompt=config.prompt,
        max_tokens=config.max_tokens,
        train_on_inputs=config.train_on_inputs,
        validation_size=config.validation_size,
        fraction=config.train_fraction,
        seed=runs.stream_seed(config.seed, "data"),
    )
    # Weights that are trained stay float32, as adapters do; the computation is in the dtype of the settings.
    dtype = torch.float32 if config.method == methods.FULL else model.resolve_dtype(config.dtype)
    base = model.load_base(config.model, dtype, config.trust_remote_code)
    adapted = attach_adapter(base, config)
    total = sum(parameter.numel() for parameter in adapted.parameters())
    run.record |= {
        "parameters": {"trainable": methods.trained_parameters(adapted), "total": total},
        "samples": {
            "train": len(split.train),
            "validation": len(split.validation) if split.validation else 0,
            "dropped": split.dropped,
            "overlap_dropped": found.facts["overlap_dropped"],
        },
    }
    run.save()
    trainer = _trainer(config, adapted, split, tokenizer, run.folder / "checkpoints")
    if awaits_gradient(adapted):
        with torch.random.fork_rng():
            passes = -(-GRADIENT_SAMPLES // config.micro_batch_size)
            initialize_mixer(adapted, itertools.islice(trainer.get_train_dataloader(), passes))
    steps = training.fit(trainer, run, config.checkpoint_limit)
    training.save_trained(trainer, run.folder, tokenizer)
    losses = [row["loss"] for row in runs.read_rows(run.folder / "metrics.jsonl") if "loss" in row]
    run.record |= {"kernels": kernels_used(adapted), "steps": steps, "final_loss": losses[-1] if losses else None}


def _trainer(
    config: CommonsenseTrainConfig,
    adapted: torch.nn.Module,
    split: samples.Split,
    tokenizer: "PreTrainedTokenizerBase",
    checkpoints: Path,
) -> transformers.Trainer:
    """A Trainer with what the method needs beside a model."""
    arguments = _arguments(config, checkpoints)
    methods.share_penalty(adapted, config.batch_size // config.micro_batch_size)
    callbacks = []
    if methods.allocates_ranks(adapted):
        if config.keep_best:
            raise ConfigError("This AdaLoRA cannot be loaded from a checkpoint, so keep_best has none to keep.")
        # A checkpoint could not be resumed. Without any, an interrupted run begins again, with the same result.
        arguments.save_strategy = transformers.trainer_utils.SaveStrategy.NO
        callbacks.append(methods.AllocateRanks(adapted))
    trainer = transformers.Trainer(
        model=adapted,
        args=arguments,
        train_dataset=split.train,
        eval_dataset=split.validation,
        data_collator=transformers.DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8),
        callbacks=callbacks,
    )
    optimizer_class, settings = trainer.get_optimizer_cls_and_kwargs(arguments)
    trainer.optimizer = methods.create_optimizer(
        adapted, config.method, optimizer_class, weight_decay=config.weight_decay, **settings
    )
    return trainer


def _arguments(config: CommonsenseTrainConfig, checkpoints: Path) -> transformers.TrainingArguments:
    """The settings in the words of transformers' Trainer."""
    dtype = model.resolve_dtype(config.dtype)
    evaluation = "steps" if config.validation_size else "no"
    arguments = transformers.TrainingArguments(
        output_dir=str(checkpoints),
        per_device_train_batch_size=config.micro_batch_size,
        per_device_eval_batch_size=config.micro_batch_size,
        gradient_accumulation_steps=_accumulation(config),
        num_train_epochs=config.epochs,
        max_steps=config.max_steps or -1,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.lr_scheduler,
        warmup_steps=config.warmup_steps,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch",
        bf16=dtype == torch.bfloat16,
        fp16=dtype == torch.float16,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=runs.stream_seed(config.seed, "dropout"),
        data_seed=runs.stream_seed(config.seed, "data"),
        full_determinism=config.deterministic,
        logging_steps=config.logging_steps,
        logging_nan_inf_filter=False,
        eval_strategy=evaluation,
        eval_steps=config.save_steps,
        save_strategy="steps",
        save_steps=config.save_steps,
        load_best_model_at_end=config.keep_best,
        metric_for_best_model="loss" if config.keep_best else None,
        report_to=config.report_to,
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )
    # One process drives one GPU. Otherwise Trainer would spread over all it sees and multiply the batch size.
    arguments._n_gpu = min(1, arguments.n_gpu)
    return arguments


def _accumulation(config: CommonsenseTrainConfig) -> int:
    """Forward passes of one process per optimizer step."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    passes, rest = divmod(config.batch_size, config.micro_batch_size * processes)
    if rest:
        raise ConfigError(
            f"batch_size {config.batch_size} cannot be split over {processes} processes in micro-batches of "
            f"{config.micro_batch_size}: choose a multiple of {config.micro_batch_size * processes}."
        )
    return passes
