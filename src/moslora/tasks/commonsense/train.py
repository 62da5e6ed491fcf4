"""Fine-tune a causal language model on commonsense questions, with transformers' Trainer."""

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import torch
import transformers

from ... import methods, runs
from ...errors import MoSLoRAWarning
from ..launch import check_launch
from ..models import resolve_dtype
from ..training import build_trainer, method_input, refuse_dtype, seeds, train_and_save
from . import model, samples
from .attach import adapter_config, attach_adapter, match_rank
from .config import CommonsenseTrainConfig, check
from .training_set import TrainingSet, load_training_set

TASK = "commonsense"


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
    refuse_dtype(config)
    check_launch(config.deepspeed)
    found = load_data(config)
    base_config = model.load_config(config.model, config.trust_remote_code)
    inputs: dict[str, Any] = {"model": model.identity(config.model), **found.inputs}
    inputs |= method_input(config.method)
    matched = match_rank(config, base_config)
    with runs.Run.open(out, task=TASK, config=dataclasses.asdict(config), inputs=inputs, seeds=seeds(config)) as run:
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
    dtype = torch.float32 if config.method == methods.FULL else resolve_dtype(config.dtype)
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
    collator = transformers.DataCollatorForSeq2Seq(tokenizer, pad_to_multiple_of=8)
    trainer = build_trainer(config, adapted, split.train, split.validation, collator, run.folder / "checkpoints")
    train_and_save(config, trainer, run, tokenizer)
