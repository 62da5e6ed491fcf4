"""Settings of commonsense fine-tuning. Their docstrings are the help of the command-line flags."""

import dataclasses
from pathlib import Path
from typing import Literal

from ...errors import ConfigError


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig:
    """Which data, in which form."""

    data: tuple[str, ...] = ()
    """.json, .jsonl, .csv, .tsv (each also .gz) or .parquet files of instruction, input, output; dataset folders;
    hf:OWNER/NAME[/CONFIG][@REVISION][:SPLIT]."""
    columns: tuple[str, ...] = ()
    """Other names of the columns, for example instruction=question output=response."""
    expected_samples: int = 0
    """Samples that a published setting has; other data gives a warning. 0 expects nothing."""
    overlap_with: str = ""
    """Folder of BENCHMARK/test.json: training samples that ask a question of these tests are counted."""
    prompt: Literal["authors", "chat"] = "authors"
    """authors: the protocol's prompt. chat: the chat template of an Instruct model's tokenizer. Evaluation follows."""
    max_tokens: int = 256
    """Longer samples are cut at the end."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonsenseDataConfig(DataConfig):
    """Settings of a look at training data."""

    model: str = ""
    """Count tokens with the tokenizer of this folder or hub id, or of `embedded`."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonsenseTrainConfig(DataConfig):
    """Settings that decide the result. The defaults are those of the authors' script, without its validation split."""

    model: str
    """Folder of a causal language model, its hub id, or `embedded` for the small one of this package."""
    method: str = "moslora"
    """moslora, ts-mixing, lora, full or another name of docs/methods.md, or file:CONFIG.json for any method of PEFT."""
    match: str = ""
    """Method to match in trained parameters: the rank becomes that at which `method` has as many as MATCH at `rank`,
    and alpha / rank stays."""

    rank: int = 16
    """Rank r of the adapter."""
    alpha: float = 32
    """The update is scaled by alpha / rank."""
    dropout: float = 0.05
    """Dropout before the adapter."""
    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
    """Layers that are adapted; `all-linear` for every one."""

    drop_overlap: bool = False
    """Remove the training samples that `overlap_with` finds."""
    train_on_inputs: bool = True
    """Take the loss over prompt and answer, as the official protocol does, or over the answer alone."""
    train_fraction: float = 1.0
    """Share of the training samples that is used, in (0, 1]. With one seed, smaller shares are parts of larger ones."""
    validation_size: int = 0
    """Samples held out, whose loss is measured every `save_steps`."""
    keep_best: bool = False
    """Keep the checkpoint with the lowest validation loss instead of the last."""

    epochs: float = 3.0
    """Passes over the data."""
    max_steps: int = 0
    """Optimizer steps; replaces `epochs` unless 0."""
    batch_size: int = 16
    """Samples per optimizer step, over all processes."""
    micro_batch_size: int = 4
    """Samples per forward pass. The loss is the mean over all tokens of the batch, however it is split."""
    learning_rate: float = 3e-4
    """Peak learning rate of AdamW."""
    warmup_steps: int = 100
    """Steps over which the learning rate rises from 0."""
    lr_scheduler: str = "linear"
    """Schedule after the warm-up, by its transformers name."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: float = 1.0
    """Gradients are clipped to this norm; 0 turns clipping off."""

    seed: int = 0
    """The one run seed; initialisation, data and dropout each have a stream of their own."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Of the frozen base and the computation; the adapter stays float32. auto: bfloat16 on a GPU that has it."""
    kernel: Literal["auto", "reference", "fused", "remat"] = "auto"
    """How adapted linear layers compute; reference is PEFT's own code, remat keeps the least memory."""
    gradient_checkpointing: bool = False
    """Compute activations again in the backward pass: less memory, more time."""
    deterministic: bool = False
    """Only deterministic GPU kernels, for bitwise repetition there."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model."""

    logging_steps: int = 10
    """Steps between two lines of metrics.jsonl."""
    save_steps: int = 200
    """Steps between two checkpoints."""
    checkpoint_limit: int = 2
    """Complete checkpoints kept during the run."""
    report_to: str = "none"
    """Also report to tensorboard, wandb, trackio, ...: whatever transformers knows."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CommonsenseEvalConfig:
    """Settings of an evaluation. The defaults are the authors' protocol."""

    run: Path
    """Folder of a finished `moslora train commonsense`."""
    data: Path
    """Folder that holds BENCHMARK/test.json or test.json.gz for every benchmark."""
    benchmarks: tuple[str, ...]
    """The paper's boolq piqa social_i_qa hellaswag winogrande ARC-Easy ARC-Challenge openbookqa, or your own."""
    decoding: Literal["authors", "greedy", "ranking"] = "authors"
    """authors: beam search with 4 beams; greedy; or ranking: the option that the model finds likeliest."""
    max_new_tokens: int = 32
    """Tokens generated at most."""
    early_stop: bool = True
    """End a question once nothing can change its answer; otherwise transformers generates all of the text."""
    merge: Literal["auto", "yes", "no"] = "auto"
    """Fold the adapter into the base first, which is faster; auto: where that is exact, in float32."""
    limit: int = 0
    """Only the first questions of each benchmark; 0 takes all."""
    batch_size: int = 16
    """Questions per batch."""
    base_only: bool = False
    """Measure the base model without the adapter, into RUN/eval-base."""
    into: str = ""
    """Folder of the run that is filled; unless given, `eval`, or `eval-base` with `base_only`."""


def check(config: CommonsenseTrainConfig) -> None:
    """Raise ConfigError that lists every value, or pair of values, that cannot be used."""
    positive = ("rank", "alpha", "max_tokens", "epochs", "batch_size", "micro_batch_size", "logging_steps")
    problems = [
        f"{name} is {getattr(config, name)}: it must be above 0"
        for name in (*positive, "learning_rate", "save_steps", "checkpoint_limit")
        if not getattr(config, name) > 0
    ]
    not_negative = (
        "expected_samples",
        "validation_size",
        "max_steps",
        "warmup_steps",
        "weight_decay",
        "max_grad_norm",
        "seed",
    )
    problems += [
        f"{name} is {getattr(config, name)}: it must not be negative"
        for name in not_negative
        if getattr(config, name) < 0
    ]
    if not 0 < config.train_fraction <= 1:
        problems.append(f"train_fraction is {config.train_fraction}: it must be above 0 and at most 1")
    if not 0 <= config.dropout < 1:
        problems.append(f"dropout is {config.dropout}: it must be in [0, 1)")
    if not config.target_modules:
        problems.append("target_modules is empty: name at least one layer, or all-linear")
    if config.micro_batch_size > 0 and config.batch_size % config.micro_batch_size:
        problems.append(
            f"batch_size {config.batch_size} is not a multiple of micro_batch_size {config.micro_batch_size}"
        )
    if config.logging_steps > 0 and config.save_steps % config.logging_steps:
        # A resumed run logs means over whole intervals only if it restarts at the end of one.
        problems.append(f"save_steps {config.save_steps} is not a multiple of logging_steps {config.logging_steps}")
    if config.drop_overlap and not config.overlap_with:
        problems.append("drop_overlap needs the tests: give their folder as overlap_with")
    if config.keep_best and not config.validation_size:
        problems.append("keep_best needs a validation_size")
    if problems:
        raise ConfigError("The settings cannot be used:\n  " + "\n  ".join(problems))
