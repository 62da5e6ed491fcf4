"""Look at conversations about images: what they hold, which images cannot be read, and how long the rows are.

    moslora data vision-language --data llava_v1_5_mix665k.json --images llava_images --model my-llava \\
        --image-check images.jsonl

Writes nothing but the file of --image-check, which training takes as well, so that no image is read twice. Broken rows
and images are counted and shown, never an error. --model counts tokens with its processor.
"""

import dataclasses
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from ..tasks.vision_language.config import VisionLanguageDataConfig

if TYPE_CHECKING:
    from rich.table import Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora data vision-language`."""

    config: Annotated[VisionLanguageDataConfig, tyro.conf.arg(name="")]
    """All settings."""
    show: int = 10
    """Rows that cannot be used which are listed."""

    def run(self) -> None:
        """Read, check and print."""
        from ..tasks.vision_language.training_set import load_training_set

        config = self.config
        found = load_training_set(dataclasses.replace(config, skip_broken=True))
        print_rows(found.facts)
        print_images(found.facts)
        for problem in found.problems[: self.show]:
            print(problem)
        if len(found.problems) > self.show:
            print(f"and {len(found.problems) - self.show:,} more; --show {len(found.problems)} lists them all")
        if config.model:
            from ..tasks.vision_language.model import load_processor
            from ..tasks.vision_language.prompt import ChatForm
            from ..tasks.vision_language.samples import token_facts

            form = ChatForm(load_processor(config.model, config.trust_remote_code))
            print_tokens(token_facts(found.rows, found.usable, form, config.max_tokens), form, config.max_tokens)


def print_rows(facts: dict[str, Any]) -> None:
    """Print sources, modalities and rows that cannot be used as a table."""
    table = _table("source", "rows")
    for row in facts["sources"]:
        table.add_row(row["source"], f"{row['rows']:,}")
    table.add_section()
    table.add_row("with an image", f"{facts['with_image']:,}")
    table.add_row("of text alone", f"{facts['text_only']:,}")
    for kind, count in facts["bad_rows"].items():
        table.add_row(f"cannot be used: {kind}", f"{count:,}")
    table.add_row("left out by --skip-broken, images included", f"{facts['skipped']:,}")
    table.add_section()
    table.add_row("answers", f"{facts['answers']:,}")
    _print(table)


def print_images(facts: dict[str, Any]) -> None:
    """Print images by what is wrong with them and by what is converted as a table."""
    from ..tasks.image_files import BROKEN, CONVERTED

    table = _table("images", "")
    table.add_row("different ones named", f"{facts['images']:,}")
    table.add_section()
    for kind, meaning in BROKEN.items():
        table.add_row(f"cannot be used, {kind}: {meaning}", f"{facts['broken'].get(kind, 0):,}")
    table.add_section()
    for kind, meaning in CONVERTED.items():
        table.add_row(f"made plain RGB, {kind}: {meaning}", f"{facts['converted'].get(kind, 0):,}")
    _print(table)


def print_tokens(counts: dict[str, float], form: Any, max_tokens: int) -> None:
    """Print lengths as a table."""
    table = _table(f"tokens of a row, of which an image takes {form.image_tokens}", "")
    for name in ("mean", "median", "95 %", "longest"):
        table.add_row(name, f"{counts[name]:,.0f}")
    table.add_section()
    table.add_row(f"rows longer than {max_tokens} (cut)", f"{counts['cut']:,}")
    table.add_row("of these without any answer (left out)", f"{counts['answer_cut']:,}")
    table.add_row("tokens that carry loss", f"{counts['learned']:,}")
    _print(table)


def _table(*columns: str) -> "Table":
    from rich.table import Table

    table = Table()
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", overflow="fold")
    return table


def _print(table: "Table") -> None:
    from rich.console import Console

    Console().print(table)
