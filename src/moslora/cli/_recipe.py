"""Flags of a training command that start from a recipe and from assignments."""

import argparse
import dataclasses
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ..errors import ConfigError
from ..recipes import configure, load_recipe, parse_assignments

Command = TypeVar("Command")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunFlags:
    """What every training command takes beside its settings."""

    out: Path | None = None
    """Folder of the run: a new one, or that of an unfinished run, which is then resumed."""
    recipe: str | None = None
    """Name of a published setting, one of those in moslora/recipes, or the path of a .toml file."""
    set: tuple[str, ...] = ()
    """Settings as key=value, which replace those of the recipe."""
    dry_run: bool = False
    """Print parameters and an estimate of memory from the model's config alone, and stop."""

    @property
    def run_folder(self) -> Path:
        """`out`.

        Raises:
            ConfigError: it was not given.
        """
        if self.out is None:
            raise ConfigError("No run folder: give one with --out.")
        return self.out


def parse_with_recipe(
    command: type[Command], config_class: type[Any], arguments: list[str], *, words: str, doc: str | None
) -> Command:
    """The command of these arguments; its --recipe and --set become the defaults of the flags.

    Args:
        command: `RunFlags` with a field `config`.
        config_class: of `config`, with a field `model` that has no default.
        arguments: of the command line.
        words: the command, for its help.
        doc: the help's text.

    Raises:
        ConfigError: a recipe or assignment that cannot be used.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--recipe")
    first.add_argument("--set", nargs="+", action="extend", default=[])
    known, rest = first.parse_known_args(arguments)
    layers = (load_recipe(known.recipe) if known.recipe else {}, parse_assignments(known.set))
    named = any("model" in layer for layer in layers)  # if not, tyro asks for one
    defaults = configure(config_class, *layers, **({} if named else {"model": tyro.MISSING}))
    start = command(config=defaults, recipe=known.recipe, set=tuple(known.set))  # type: ignore[call-arg]
    return tyro.cli(command, args=rest, default=start, prog=words, description=doc)
