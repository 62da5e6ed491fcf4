"""Recipes: one TOML file a published setting, found by listing this folder.

A recipe holds values of one task's config dataclass. `configure` lays values over each other (dataclass defaults, then
the recipe, then `key=value` assignments), checks every key and type, and reports all problems at once.
"""

import difflib
import tomllib
import types
import typing
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

from ..errors import ConfigError

FOLDER = Path(__file__).parent

Config = TypeVar("Config")


def recipe_names() -> list[str]:
    """Names of the recipes that come with the package, for example "commonsense/llama3-8b"."""
    return sorted(path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.toml"))


def load_recipe(recipe: str) -> dict[str, Any]:
    """Values of a recipe.

    Args:
        recipe: one of `recipe_names()`, or the path of a .toml file, such as the recipe.toml of a run.

    Raises:
        ConfigError: there is none of that name, or the file is not TOML.
    """
    path = Path(recipe) if recipe.endswith(".toml") else FOLDER / f"{recipe}.toml"
    if not path.is_file():
        near = difflib.get_close_matches(recipe, recipe_names(), n=1, cutoff=0)
        raise ConfigError(
            f"There is no recipe {recipe!r}. Did you mean {near[0]!r}? All of them: {', '.join(recipe_names())}; "
            "or give the path of a .toml file."
        )
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path} is not TOML: {error}.") from error


def parse_assignments(assignments: Iterable[str]) -> dict[str, Any]:
    """Values of `key=value` texts. A value is read as TOML; what is not TOML is text, so quotes are optional.

    Raises:
        ConfigError: a text has no `=`.
    """
    texts = list(assignments)
    wrong = [text for text in texts if not text.partition("=")[1]]
    if wrong:
        raise ConfigError(f"Expected key=value, found {', '.join(map(repr, wrong))}.")
    return {key.strip(): _value(text.strip()) for key, _, text in (text.partition("=") for text in texts)}


def configure(config_class: type[Config], *layers: Mapping[str, Any], **fixed: Any) -> Config:
    """A config of `config_class` from layers of values, the last one winning.

    Args:
        config_class: a keyword-only dataclass of str, int, float, bool, Literal, tuple[str, ...] and None.
        layers: for example a recipe and assignments.
        fixed: values that are taken as they are.

    Raises:
        ConfigError: names every unknown key (with the nearest one) and every value of a wrong type.
    """
    kinds = typing.get_type_hints(config_class)
    values: dict[str, Any] = {}
    problems = []
    for layer in layers:
        for key, value in layer.items():
            if key not in kinds:
                near = difflib.get_close_matches(key, kinds, n=1, cutoff=0)
                problems.append(f"unknown key {key!r}: did you mean {near[0]!r}?")
            elif not _fits(value, kinds[key]):
                problems.append(f"{key} = {value!r} is {_name(type(value))}, but {_name(kinds[key])} is expected")
            else:
                values[key] = _as(value, kinds[key])
    if problems:
        raise ConfigError("The settings cannot be used:\n  " + "\n  ".join(problems))
    return config_class(**{**values, **fixed})


def _value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except ValueError:
        return text


def _fits(value: Any, kind: Any) -> bool:
    origin = get_origin(kind)
    if origin is Literal:
        return value in get_args(kind)
    if origin in (Union, types.UnionType):
        return any(_fits(value, each) for each in get_args(kind))
    if origin is tuple:
        values = value if isinstance(value, (list, tuple)) else [value]  # one value is a list of one
        return all(isinstance(each, get_args(kind)[0]) for each in values)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, kind)


def _as(value: Any, kind: Any) -> Any:
    """The value in the form the dataclass promises: 3 becomes 3.0 for a float, a list or a single value a tuple."""
    if get_origin(kind) is tuple:
        return tuple(value) if isinstance(value, (list, tuple)) else (value,)
    return float(value) if kind is float else value


def _name(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(map(repr, get_args(kind)))
    if get_origin(kind) in (Union, types.UnionType):
        return " or ".join(map(_name, get_args(kind)))
    if get_origin(kind) is tuple:
        return f"a list of {_name(get_args(kind)[0])}"
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", list: "a list"}
    return names.get(kind, "nothing" if kind is type(None) else str(getattr(kind, "__name__", kind)))
