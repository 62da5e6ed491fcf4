"""What the README and the docs promise exists, and their code runs."""

import re
import shlex
from pathlib import Path

import pytest
import torch

from moslora.cli import commands, main
from tests.helpers import tiny_llama

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *(ROOT / "docs").glob("*.md")])


def _blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def _command_lines() -> list[str]:
    lines = []
    for page in PAGES:
        for block in _blocks(page, "bash"):
            lines += [line.partition("#")[0].strip() for line in block.replace("\\\n", " ").splitlines()]
    return [line for line in lines if line]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    local = [target for target in targets if not target.startswith("http")]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_the_python_of_the_readme_runs_in_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"base": tiny_llama()}
    for block in _blocks(ROOT / "README.md", "python"):
        exec(block, names)
    saved = tmp_path / "my-lora"
    assert (saved / "adapter_model.safetensors").exists()
    assert not [name for name, _ in names["model"].named_parameters() if "mixer" in name]
    assert names["model"](torch.ones(1, 3, dtype=torch.long)).logits.isfinite().all()


@pytest.mark.parametrize("line", [line for line in _command_lines() if line.startswith("moslora ")])
def test_command_lines_can_be_parsed(line, monkeypatch):
    """The command is understood to its last flag; it is not run."""
    import importlib

    import moslora.cli

    parsed = []
    words, _ = moslora.cli._split(shlex.split(line)[1:])
    if words is None:
        pytest.fail(f"no such command: {line}") if "COMMAND" not in line else None
        return
    module = importlib.import_module(f"moslora.cli.{moslora.cli._module_name(words)}")
    monkeypatch.setattr(module.Command, "run", lambda self: parsed.append(self))
    assert main(shlex.split(line)[1:]) == 0
    assert len(parsed) == 1


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    wanted = {line.split()[1] for line in _command_lines() if line.startswith("make ")}
    assert wanted
    assert all(re.search(rf"^{target}:", makefile, re.MULTILINE) for target in wanted)


def test_the_table_of_commands_is_complete():
    table = (ROOT / "README.md").read_text().partition("| command |")[2]
    rows = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    listed = {name for row in rows for name in re.findall(r"`([a-z -]+)`", row)}
    assert listed == {" ".join(words) for words in commands()}


def test_the_project_has_what_a_project_has():
    citation = (ROOT / "CITATION.cff").read_text()
    assert "2406.11909" in citation
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert (ROOT / "src" / "moslora" / "py.typed").exists()
