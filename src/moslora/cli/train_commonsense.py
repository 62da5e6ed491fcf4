"""Fine-tune a causal language model on commonsense questions.

    moslora train commonsense --recipe commonsense/llama3-8b --model meta-llama/Meta-Llama-3-8B-Instruct \\
        --data commonsense_170k.json --method moslora --out runs/moslora

Writes RUN/run.json, recipe.toml, data.json (samples, repetitions, overlap with tests), metrics.jsonl, adapter/ (for
exact resume and for `moslora export`) and lora/ (the equal plain LoRA, for any LoRA client). The same command again
resumes an unfinished run exactly; a finished one is never overwritten. Later wins: defaults, --recipe, --set, flags.
See also `moslora data commonsense` and `moslora eval commonsense`.
"""

import dataclasses
import math
from typing import Annotated

import tyro

from ..tasks.commonsense.config import CommonsenseTrainConfig
from ._estimate import print_estimate
from ._outcome import print_outcome
from ._recipe import RunFlags, parse_with_recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command(RunFlags):
    """Arguments of `moslora train commonsense`."""

    config: Annotated[CommonsenseTrainConfig, tyro.conf.arg(name="")]
    """All settings."""

    @classmethod
    def parse(cls, arguments: list[str]) -> "Command":
        """The command of these arguments: recipe and assignments become the defaults of the flags.

        Raises:
            ConfigError: a recipe or assignment that cannot be used.
        """
        words = "moslora train commonsense"
        return parse_with_recipe(cls, CommonsenseTrainConfig, arguments, words=words, doc=__doc__)

    def run(self) -> None:
        """Train, or estimate."""
        if self.dry_run:
            self._estimate()
            return
        out = self.run_folder
        from ..tasks.commonsense.train import train

        record = train(self.config, out)
        print_outcome(out, record)
        if left_out := record["samples"]["overlap_dropped"]:
            print(f"{left_out:,} samples whose question is in the tests were left out")
        print(f"next: moslora eval commonsense --run {out} --data DIR --benchmarks NAME ...")

    def _estimate(self) -> None:
        from ..tasks.commonsense.estimate import estimate
        from ..tasks.commonsense.samples import select
        from ..tasks.commonsense.train import load_data

        config = self.config
        print_estimate(estimate(config), config.method)
        if config.data:
            items = load_data(config).items
            chosen = select(items, validation_size=config.validation_size, fraction=config.train_fraction, seed=0)
            samples = len(chosen.train)
            steps = math.ceil(samples / config.batch_size)
            total = config.max_steps or math.ceil(steps * config.epochs)
            print(f"{samples:,} samples, {steps:,} steps an epoch, {total:,} steps in all")
