"""What is measured: the pictures that a run has generated, their prompts, and the photographs of its subject."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .... import runs
from ....errors import ConfigError, DataError

if TYPE_CHECKING:
    from PIL.Image import Image

SUFFIXES = {".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"}


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


def read_subject(
    folder: Path, references: Path | None = None, unique_token: str | None = None, base_only: bool = False
) -> Subject:
    """The pictures and photographs of a finished run.

    Args:
        folder: RUN, with RUN/images/images.jsonl from `moslora generate subject`.
        references: photographs of the subject; those that the run was trained on when None.
        unique_token: the word for the subject; found in the run's prompts when None.
        base_only: take the pictures of the base model, RUN/images-base.

    Raises:
        RunError: the run is not finished.
        DataError: pictures or photographs are missing.
        ConfigError: the unique token cannot be found.
    """
    config = runs.finished_record(folder)["config"]
    references = Path(references or config["images"])
    token = find_token(config) if unique_token is None else unique_token
    return Subject(
        folder=folder,
        results=folder / ("eval-base" if base_only else "eval"),
        method="base model" if base_only else str(config.get("method", "unknown method")),
        name=references.resolve().name,
        token=token,
        photographs=_photographs(references),
        pictures=_pictures(folder / ("images-base" if base_only else "images"), token),
    )


def find_token(config: Mapping[str, Any]) -> str:
    """The word of the training prompt that its class prompt has not, such as `sks` in "a photo of sks dog".

    Raises:
        ConfigError: there is no such word, or there are several apart from each other.
    """
    words, general = str(config.get("prompt", "")).split(), str(config.get("class_prompt") or "").split()
    own = [word for word in words if word not in general] if general else [word for word in words if word == "sks"]
    token = " ".join(own)
    if not token or token not in " ".join(words):
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


def open_picture(path: Path) -> "Image":
    """A picture as RGB, turned as its camera says.

    Raises:
        DataError: the file is no picture.
    """
    from PIL import Image, ImageOps

    try:
        with Image.open(path) as opened:
            return ImageOps.exif_transpose(opened).convert("RGB")
    except OSError as error:
        raise DataError(f"{path}: cannot be read as a picture ({error}). Remove it or copy it again.") from None


def _photographs(folder: Path) -> list[Photograph]:
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES)
    if not paths:
        raise DataError(
            f"{folder}: found no photographs ({', '.join(sorted(SUFFIXES))}), expected those of the subject. Give "
            "their folder with --references."
        )
    return [Photograph(path, runs.file_sha256(path)) for path in paths]


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
