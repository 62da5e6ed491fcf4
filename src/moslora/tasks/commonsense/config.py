"""Settings of commonsense fine-tuning. Their docstrings are the help of the command-line flags."""

import dataclasses
from pathlib import Path
from typing import Literal

from ..settings import TrainerSettings, problems, refuse


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
class CommonsenseTrainConfig(DataConfig, TrainerSettings):
    """Settings that decide the result. The defaults are those of the authors' script, without its validation split."""

    model: str
    """Folder of a causal language model, its hub id, or `embedded` for the small one of this package."""
    match: str = ""
    """Method to match in trained parameters: the rank becomes that at which `method` has as many as MATCH at `rank`,
    and alpha / rank stays."""

    target_modules: tuple[str, ...] = ("q_proj", "k_proj", "v_proj", "up_proj", "down_proj")
    """Layers that are adapted; `all-linear` for every one."""

    drop_overlap: bool = False
    """Remove the training samples that `overlap_with` finds."""
    train_on_inputs: bool = True
    """Take the loss over prompt and answer, as the official protocol does, or over the answer alone."""
    train_fraction: float = 1.0
    """Share of the training samples that is used, in (0, 1]. With one seed, smaller shares are parts of larger ones."""


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
    found = problems(config, positive=("max_tokens",), not_negative=("expected_samples",))
    if not 0 < config.train_fraction <= 1:
        found.append(f"train_fraction is {config.train_fraction}: it must be above 0 and at most 1")
    if not config.target_modules:
        found.append("target_modules is empty: name at least one layer, or all-linear")
    if config.drop_overlap and not config.overlap_with:
        found.append("drop_overlap needs the tests: give their folder as overlap_with")
    refuse(found)
