"""What is measured: the pictures that a run has generated, their prompts, and the photographs of its subject."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from .... import runs
from ....errors import ConfigError, DataError
from ..images import find_pictures
from ..prompts import subject_of
from .config import SubjectEvalConfig


class Photograph(NamedTuple):
    """A file, known by its content."""

    path: Path
    sha256: str


class Picture(NamedTuple):
    """A generated picture."""

    file: str  # relative to the folder of the run's pictures
    prompt_index: int
    prompt: str
    text: str  # the prompt without the unique token, which CLIP-T compares
    seed: int
    path: Path
    sha256: str


class Subject(NamedTuple):
    """What a run offers to be measured."""

    folder: Path  # of the run
    results: Path  # folder that the evaluation fills
    method: str
    name: str  # of the folder of photographs
    token: str  # left out of the prompts; empty if there is none
    photographs: list[Photograph]
    pictures: list[Picture]


def read_subject(folder: Path, settings: SubjectEvalConfig) -> Subject:
    """The pictures and photographs of a finished run.

    Args:
        folder: RUN, with RUN/images/images.jsonl from `moslora generate subject`.
        settings: which pictures, which photographs and which unique token, where they are not the run's own.

    Raises:
        RunError: the run is not finished.
        DataError: pictures or photographs are missing.
        ConfigError: the unique token cannot be found.
    """
    config = runs.finished_record(folder)["config"]
    references = Path(settings.references or config["images"])
    token = find_token(config) if settings.unique_token is None else settings.unique_token
    pictures = settings.pictures or ("images-base" if settings.base_only else "images")
    return Subject(
        folder=folder,
        results=results_folder(folder, settings),
        method="base model" if settings.base_only else str(config.get("method", "unknown method")),
        name=references.resolve().name,
        token=token,
        photographs=[Photograph(path, runs.file_sha256(path)) for path in find_pictures(references)],
        pictures=_pictures(folder / pictures, token),
    )


def results_folder(folder: Path, settings: SubjectEvalConfig) -> Path:
    """The folder of a run that an evaluation fills."""
    if settings.pictures:
        return folder / f"eval-{settings.pictures.removeprefix('images-')}"
    return folder / ("eval-base" if settings.base_only else "eval")


def find_token(config: Mapping[str, Any]) -> str:
    """The word for the subject in the training prompt, such as `sks` in "a photo of sks dog".

    It is what the class prompt lacks; without a class prompt, the word before the class.

    Raises:
        ConfigError: there is no such word, or there are several apart from each other.
    """
    prompt, general = str(config.get("prompt", "")), str(config.get("class_prompt") or "").split()
    own = [word for word in prompt.split() if word not in general] if general else subject_of(prompt).split()[:-1][:1]
    token = " ".join(own)
    if not token or token not in prompt:
        raise ConfigError(
            f"Cannot tell which word of {config.get('prompt')!r} stands for the subject (class prompt: "
            f"{config.get('class_prompt')!r}): name it with --unique-token, or give --unique-token '' if there is none."
        )
    return token


def without_token(prompt: str, token: str) -> str:
    """The prompt with the words of the token left out, for example "a photo of dog in the snow"."""
    words, own = prompt.split(), token.split()
    kept: list[str] = []
    place = 0
    while place < len(words):
        if own and words[place : place + len(own)] == own:
            place += len(own)
        else:
            kept.append(words[place])
            place += 1
    return " ".join(kept)


def _pictures(folder: Path, token: str) -> list[Picture]:
    rows = {row["file"]: row for row in runs.read_rows(folder / "images.jsonl")}
    if not rows:
        raise DataError(
            f"{folder / 'images.jsonl'}: found no pictures. Generate them first: moslora generate subject --run "
            f"{folder.parent}"
        )
    missing = [file for file in rows if not (folder / file).is_file()]
    if missing:
        raise DataError(
            f"{folder}: {len(missing)} of {len(rows)} pictures are not there, such as {missing[0]}: repeat `moslora "
            "generate subject`."
        )
    pictures = [
        Picture(
            file=file,
            prompt_index=int(row["prompt_index"]),
            prompt=row["prompt"],
            text=without_token(row["prompt"], token),
            seed=int(row["seed"]),
            path=folder / file,
            sha256=runs.file_sha256(folder / file),
        )
        for file, row in rows.items()
    ]
    return sorted(pictures, key=lambda picture: (picture.prompt_index, picture.seed, picture.file))
