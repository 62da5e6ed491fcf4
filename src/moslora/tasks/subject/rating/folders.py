"""Generated pictures as folders: what `moslora generate subject` leaves, or any folder with an images.jsonl.

RUN/images/images.jsonl holds one row a picture: file (relative to that folder), prompt_index, prompt, seed. A folder
with an images.jsonl of its own will do.
"""

from pathlib import Path
from typing import Any, NamedTuple

from .... import runs
from ....errors import DataError

INDEX = "images.jsonl"
SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp"}


class Picture(NamedTuple):
    """One generated picture."""

    path: Path
    prompt_index: int
    prompt: str
    seed: int


class Folder(NamedTuple):
    """The pictures of one method and subject."""

    path: Path  # as it was given
    method: str
    references: Path | None  # folder of the photographs that the run was trained on
    pictures: dict[tuple[str, int], Picture]  # by prompt and seed


class Match(NamedTuple):
    """Pictures of two folders with one prompt and one seed."""

    a: Picture
    b: Picture


def read_folder(path: Path, method: str | None = None) -> Folder:
    """The pictures of a run or of a plain folder.

    Args:
        path: a run folder of which pictures were generated, or a folder with an images.jsonl.
        method: its name in tables; that of the run, or the name of the folder, by default.

    Raises:
        DataError: no pictures, a row that cannot be used, a picture that is missing, or two of one prompt and seed.
        RunError: the run is not finished.
    """
    config: dict[str, Any] = {}
    if (path / "run.json").exists():
        config = runs.finished_record(path).get("config", {})
    folder = next((each for each in (path / "images", path) if (each / INDEX).is_file()), None)
    if folder is None:
        raise DataError(
            f"{path} holds no generated pictures: expected {path / 'images' / INDEX} (`moslora generate subject --run "
            f"{path}` writes it) or {path / INDEX}."
        )
    pictures: dict[tuple[str, int], Picture] = {}
    for number, row in enumerate(runs.read_rows(folder / INDEX), 1):
        picture = _picture(folder, row, number)
        key = (picture.prompt, picture.seed)
        if pictures.get(key, picture).path != picture.path:  # an interrupted run may list one file twice
            raise DataError(
                f"{folder / INDEX} has two pictures of seed {picture.seed} for {picture.prompt!r}: "
                f"{pictures[key].path.name} and {picture.path.name}. Remove one of the two rows."
            )
        pictures[key] = picture
    if not pictures:
        raise DataError(f"{folder / INDEX} lists no pictures.")
    references = Path(config["images"]) if config.get("images") else None
    return Folder(path, method or config.get("method") or path.resolve().name, references, pictures)


def _picture(folder: Path, row: dict[str, Any], number: int) -> Picture:
    try:
        path = folder / str(row["file"])
        picture = Picture(path, int(row["prompt_index"]), str(row["prompt"]), int(row["seed"]))
        is_inside, is_there = path.resolve().is_relative_to(folder.resolve()), path.is_file()
    except (KeyError, TypeError, ValueError, OverflowError, OSError) as error:
        raise DataError(
            f"Line {number} of {folder / INDEX} cannot be used ({type(error).__name__}: {str(error)[:200]}): expected "
            '{"file": ..., "prompt_index": ..., "prompt": ..., "seed": ...}.'
        ) from None
    if not is_inside:
        raise DataError(f"Line {number} of {folder / INDEX} names {row['file']!r}, which is not inside {folder}.")
    if not is_there:
        raise DataError(f"Line {number} of {folder / INDEX} names {row['file']!r}, which is not there.")
    return picture


def match(a: Folder, b: Folder) -> tuple[list[Match], list[str]]:
    """Pairs of one prompt and seed, by number of the prompt and seed, and a sentence about every unmatched picture.

    Raises:
        DataError: no picture of A has a partner in B.
    """
    both = sorted(
        a.pictures.keys() & b.pictures.keys(), key=lambda key: (a.pictures[key].prompt_index, a.pictures[key].seed, key)
    )
    if not both:
        raise DataError(
            f"No picture of {a.path} has the prompt and the seed of one of {b.path}: generate both with the same "
            "prompts and seeds."
        )
    alone = [
        f"{folder.path}: {folder.pictures[key].path.name} (seed {key[1]}, {key[0]!r}) has no partner in {other.path}"
        for folder, other in ((a, b), (b, a))
        for key in sorted(folder.pictures.keys() - other.pictures.keys())
    ]
    return [Match(a.pictures[key], b.pictures[key]) for key in both], alone


def reference_files(folder: Path) -> list[Path]:
    """The photographs of a subject, by name.

    Raises:
        DataError: the folder holds none.
    """
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES) if folder.is_dir() else []
    if not found:
        raise DataError(
            f"No reference photographs in {folder}: expected a folder of pictures ({', '.join(sorted(SUFFIXES))}). "
            "Say where they are with --references DIR."
        )
    return found
