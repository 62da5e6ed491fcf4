"""Say what a training run needs and which micro-batch fits a card, from the model's config alone.

    moslora plan meta-llama/Meta-Llama-3-8B --method moslora --rank 16 --gpus 1 --gpu-memory 80

MODEL (the same as --model MODEL) is a folder with config.json, a hub id, or `embedded`. Takes the settings of
`moslora train commonsense`; nothing is trained, and no weights are read. Prints trained parameters by kind of module,
the adapter's size on disk, and memory per GPU for each kernel, with and without gradient checkpointing.
"""

import dataclasses
from typing import TYPE_CHECKING, Annotated

import tyro

from ..tasks.commonsense.config import CommonsenseTrainConfig

if TYPE_CHECKING:
    from rich.table import Column

    from ..tasks.commonsense.plan import Plan


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora plan`."""

    config: Annotated[CommonsenseTrainConfig, tyro.conf.arg(name="")]
    """All settings."""
    gpus: int = 1
    """Cards. Data parallel: the batch is split, all weights are on each. Sharding is not estimated."""
    gpu_memory: float = 80.0
    """Memory of each card in GiB."""
    reserve: float = 1.0
    """GiB left free on each card for CUDA's context and fragmentation."""

    @classmethod
    def parse(cls, arguments: list[str]) -> "Command":
        """The command of these arguments; a first one that is no flag is the model."""
        if arguments and not arguments[0].startswith("-"):
            arguments = ["--model", *arguments]
        return tyro.cli(cls, args=arguments, prog="moslora plan", description=__doc__)

    def run(self) -> None:
        """Print the plan."""
        from ..tasks.commonsense.plan import plan

        print_plan(plan(self.config, gpus=self.gpus, gpu_memory=self.gpu_memory, reserve=self.reserve))


def print_plan(found: "Plan") -> None:
    """Print the tables of a plan."""
    from rich.table import Table

    from ..tasks.estimate import FORMULAS
    from ._console import wide_console

    config, first = found.config, found.arms[0].numbers
    console = wide_console(140)
    console.print(
        f"{config.method}, rank {config.rank}, on {first.total:,} parameters in {first.dtype}; "
        f"{found.gpus} GPU(s) with {found.limit_bytes / 2**30:,.1f} GiB each to be used"
    )
    modules = Table("module", *(_right(title) for title in ("number", "parameters each", "trained parameters")))
    for kind in found.kinds:
        each = f"{kind.trainable // kind.modules:,}" if kind.trainable % kind.modules == 0 else "differ"
        modules.add_row(kind.name, str(kind.modules), each, f"{kind.trainable:,}")
    modules.add_row("all", "", "", f"{first.trainable:,}")
    console.print(modules)
    console.print(f"trained weights on disk: {found.saved_bytes / 2**20:,.1f} MiB")
    parts = ("weight", "adapter", "gradient", "optimizer", "activation", "loss")
    memory = Table(
        "kernel", "checkpointing", *map(_right, (*parts, "sum", "fits", "largest micro-batch", "of this batch"))
    )
    for arm in found.arms:
        sizes = [getattr(arm.numbers, f"{part}_bytes") for part in parts] + [arm.numbers.bytes]
        memory.add_row(
            arm.kernel,
            "yes" if arm.gradient_checkpointing else "no",
            *(f"{size / 2**30:,.2f}" for size in sizes),
            "yes" if arm.numbers.bytes <= found.limit_bytes else "no",
            f"{arm.largest_micro_batch:,}" if arm.largest_micro_batch else "none",
            f"{arm.usable_micro_batch:,}" if arm.usable_micro_batch else "none",
        )
    console.print(f"GiB on each GPU at micro_batch_size {config.micro_batch_size}, max_tokens {config.max_tokens}:")
    console.print(memory)
    share = config.batch_size // found.gpus
    console.print(
        f"of this batch: the largest that divides the {share} samples a GPU has of batch_size {config.batch_size}. "
        "Weights are on every GPU; sharding is not estimated.",
        soft_wrap=True,
    )
    console.print("\n".join(FORMULAS), style="dim", soft_wrap=True)


def _right(title: str) -> "Column":
    from rich.table import Column

    return Column(title, justify="right")
