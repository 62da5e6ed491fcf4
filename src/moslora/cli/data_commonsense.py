"""Look at training data: what it holds, repeats, gives away of the tests, and how long it is.

    moslora data commonsense --data commonsense_170k.json --overlap-with dataset --model meta-llama/Meta-Llama-3-8B

Writes nothing. --overlap-with takes a folder of BENCHMARK/test.json; --model counts tokens with its tokenizer.
"""

import dataclasses
from typing import Annotated, Any

import tyro

from ..tasks.commonsense.config import CommonsenseDataConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora data commonsense`."""

    config: Annotated[CommonsenseDataConfig, tyro.conf.arg(name="")]
    """All settings."""

    def run(self) -> None:
        """Read, compare and print."""
        from ..tasks.commonsense.overlap import answer_formats
        from ..tasks.commonsense.training_set import load_training_set

        config = self.config
        found = load_training_set(
            config.data,
            columns=config.columns,
            expected_samples=config.expected_samples,
            overlap_with=config.overlap_with,
        )
        print_samples(found.facts, answer_formats(found.items))
        if config.overlap_with:
            print_overlap(found.facts["overlap"])
        if config.model:
            from ..tasks.commonsense.model import load_tokenizer
            from ..tasks.commonsense.samples import count_tokens

            tokenizer = load_tokenizer(config.model, config.trust_remote_code)
            counts = count_tokens(found.items, tokenizer, prompt=config.prompt, max_tokens=config.max_tokens)
            print_tokens(counts, config.max_tokens)


def print_samples(facts: dict[str, Any], formats: dict[str, int]) -> None:
    """Print sources, forms of answers and repetitions as a table."""
    table = _table("source or answer format", "samples")
    for row in facts["sources"]:
        table.add_row(row["source"], f"{row['samples']:,}")
    table.add_section()
    for name, count in formats.items():
        table.add_row(name or "(none given)", f"{count:,}")
    table.add_section()
    table.add_row("all", f"{facts['samples']:,}")
    table.add_row("repeat an earlier sample", f"{facts['duplicates']:,}")
    table.add_row("questions with two different answers", f"{facts['contradictions']:,}")
    _print(table)


def print_overlap(rows: list[dict[str, Any]]) -> None:
    """Print, for each benchmark, how many of its questions the training data has."""
    table = _table("test", "questions", "in the training data", "with options reordered", "training samples")
    for row in rows:
        numbers = (row[key] for key in ("questions", "same", "reordered", "samples"))
        table.add_row(row["benchmark"], *(f"{number:,}" for number in numbers))
    _print(table)


def print_tokens(counts: dict[str, float], max_tokens: int) -> None:
    """Print lengths as a table."""
    table = _table("tokens of a sample", "")
    for name in ("mean", "median", "95 %", "longest"):
        table.add_row(name, f"{counts[name]:,.0f}")
    table.add_section()
    table.add_row(f"samples longer than {max_tokens} (cut)", f"{counts['cut']:,}")
    table.add_row("of these without any of their answer", f"{counts['answer_cut']:,}")
    _print(table)


def _table(*columns: str) -> Any:
    from rich.table import Table

    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _print(table: Any) -> None:
    from rich.console import Console

    Console().print(table)
