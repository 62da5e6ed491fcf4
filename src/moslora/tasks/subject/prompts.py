"""Which prompts a subject is drawn with: lists of this package, a file of one a line, or DreamBooth's own file."""

import re
from pathlib import Path

from ...errors import ConfigError, DataError

LISTS = ("object", "live")
FOLDER = Path(__file__).parent / "prompt_lists"
_SECTIONS = {"Object Prompts": "object", "Live Subject Prompts": "live"}
_FORMATTED = re.compile(r"""^\s*(['"])(.+)\1\.format\(""")  # a line of DreamBooth's file


def read_prompts(prompts: str, subject: str) -> list[str]:
    """The prompts, with the subject in its place.

    Args:
        prompts: "object" or "live"; the path of a file of one prompt a line, empty lines and those with # left out; or
            PATH:object or PATH:live of a file of DreamBooth's prompts_and_classes.txt form.
        subject: replaces {}, for example "sks dog".

    Raises:
        DataError: no such file, or none of the prompts in it.
        ConfigError: a prompt has a place for the subject, and there is no subject.
    """
    if prompts in LISTS:
        templates = _lines(FOLDER / f"{prompts}.txt")
    else:
        path, separator, section = prompts.rpartition(":")
        templates = _section(Path(path), section) if separator and section in LISTS else _lines(Path(prompts))
    if not subject and any("{}" in template for template in templates):
        raise ConfigError('The prompts have a place for the subject: say what to put there, --subject "sks dog".')
    return [template.replace("{}", subject) for template in templates]


def subject_of(prompt: str) -> str:
    """The rare word and the class that a training prompt names: "sks dog" of "a photo of sks dog"."""
    named = (prompt.partition(" of ")[2] or prompt).strip().rstrip(".")
    return re.sub(r"^(a|an|the)\s+", "", named, flags=re.IGNORECASE)


def _read(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DataError(
            f"Cannot read prompts from {path}: {error}. Expected {', '.join(LISTS)}, or a file of one prompt a line."
        ) from error


def _lines(path: Path) -> list[str]:
    lines = [line.strip() for line in _read(path)]
    found = [line for line in lines if line and not line.startswith("#")]
    if any(_FORMATTED.match(line) for line in found):
        raise DataError(f"{path} has the form of DreamBooth's file: say which of its lists, {path}:object or :live.")
    if not found:
        raise DataError(f"{path} holds no prompt: expected one a line.")
    return found


def _section(path: Path, section: str) -> list[str]:
    current, found = "", []
    for line in _read(path):
        current = _SECTIONS.get(line.strip(), current)
        match = _FORMATTED.match(line)
        if match and current == section:
            found.append(match[2].replace("{0} {1}", "{}"))
    if not found:
        raise DataError(f"{path} has no list of {section} prompts: expected the form of DreamBooth's file.")
    return found
