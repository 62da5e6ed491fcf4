"""The page of supported versions says what pyproject.toml and constraints.txt say."""

import re
import tomllib

import pytest

from tests.helpers import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
REQUIREMENTS = [*PROJECT["dependencies"], *PROJECT["optional-dependencies"]["diffusion"]]
OLDEST = dict(re.match(r"([\w-]+)>=([\d.]+)", each).groups() for each in REQUIREMENTS)
PINNED = dict(re.findall(r"^([\w-]+)==([\d.]+)", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE))
TABLE = re.findall(
    r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \|$",
    (ROOT / "docs" / "compatibility.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


def _starts(version, with_parts):
    return version.split(".")[: len(with_parts.split("."))] == with_parts.split(".")


def test_the_table_has_the_packages_that_matter():
    assert {name for name, *_ in TABLE} == {"Python", "torch", "transformers", "peft", "accelerate", "diffusers"}
    assert PROJECT["requires-python"] == f">={TABLE[0][1]}"


@pytest.mark.parametrize(("name", "oldest", "pinned"), TABLE[1:])
def test_versions_in_the_table(name, oldest, pinned):
    assert _starts(oldest, OLDEST[name])
    assert _starts(PINNED[name], pinned)
