"""Which room may import which, and how large a file may grow."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "moslora"

# room -> rooms it may import. Everything may import errors; the package's own __init__ only names things.
MAY_IMPORT = {
    "errors": set(),
    "equation": set(),
    "locks": set(),
    "runs": {"locks"},
    "resume": {"runs"},
    "embedded": set(),
    "doctor": {"runs"},
    "recipes": set(),
    "ops": {"equation"},
    "adapter": {"ops", "equation"},
    "checkpoint": {"adapter", "equation"},
    "methods": {"adapter"},
    "report": {"runs"},
    "tasks": {"adapter", "checkpoint", "methods", "runs", "resume", "locks", "embedded"},
    "compare": {"tasks", "methods", "runs", "locks", "report"},
    "__main__": {"cli"},
    "cli": {"doctor", "compare", "tasks", "report", "checkpoint", "runs", "methods", "embedded", "recipes"},
}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def _room(path: Path) -> str:
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def _modules(path: Path) -> Iterator[str]:
    """Absolute names of everything a file imports."""
    package = ("moslora", *path.relative_to(PACKAGE).parent.parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = package[: len(package) - node.level + 1] if node.level else ()
            origin = ".".join((*start, *([node.module] if node.module else [])))
            yield from (f"{origin}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_room_imports_only_what_it_may(path):
    room = _room(path)
    imported = {name.split(".")[1] for name in _modules(path) if name.startswith("moslora.")} - {"__version__"}
    assert imported - {room, "errors"} <= MAY_IMPORT[room]


def test_only_the_adapter_knows_the_insides_of_peft():
    guilty = {_room(path) for path in FILES if any(name.startswith("peft.tuners") for name in _modules(path))}
    assert guilty == {"adapter"}


@pytest.mark.parametrize("room", ["locks", "runs", "resume", "report", "errors", "recipes"])
def test_reading_results_needs_no_torch(room):
    heavy = ("torch", "transformers", "peft", "datasets")
    paths = [path for path in FILES if _room(path) == room]
    assert paths
    assert not [name for path in paths for name in _modules(path) if name.split(".")[0] in heavy]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_files_and_functions_stay_small(path):
    text = path.read_text(encoding="utf-8")
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno - node.lineno + 1 <= 60, f"{node.name} is long"


def test_public_things_have_docstrings():
    bare = []
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in [tree, *tree.body]:
            named = isinstance(node, (ast.FunctionDef, ast.ClassDef)) and not node.name.startswith("_")
            if (named or isinstance(node, ast.Module)) and not ast.get_docstring(node):
                bare.append(f"{path.relative_to(PACKAGE)}: {getattr(node, 'name', 'the module')}")
    assert bare == []
