"""The table of a dry run."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..tasks.estimate import Estimate


def print_estimate(numbers: "Estimate", method: str) -> None:
    """Print parameters and memory as a table."""
    from rich.console import Console
    from rich.table import Table

    from ..tasks.estimate import FORMULAS

    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    table.add_row("trainable parameters", f"{numbers.trainable:,}")
    table.add_row("of the base", f"{numbers.trainable / numbers.total:.4%}", end_section=True)
    for part in ("weight", "adapter", "gradient", "optimizer", "activation", "loss"):
        table.add_row(f"{part} memory", f"{getattr(numbers, f'{part}_bytes') / 2**30:,.3f} GiB")
    table.add_row("estimate of the peak", f"{numbers.bytes / 2**30:,.3f} GiB")
    console = Console()
    console.print(f"{method} on {numbers.total:,} frozen parameters ({numbers.dtype})")
    console.print(table)
    console.print("\n".join(FORMULAS), style="dim", soft_wrap=True)
