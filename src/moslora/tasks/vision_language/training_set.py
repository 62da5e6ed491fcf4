"""The rows of a run: read from all files, checked together with their images, and described."""

from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from ... import runs
from ...checkpoint.progress import track
from ...errors import ConfigError, DataError
from .config import DataConfig
from .image_check import ImageCheck, count_kinds
from .prompt import ASSISTANT
from .rows import BadRow, RowFile, Talk, parse_row

SHOWN = 10  # problems that an error lists


class Rows:
    """Rows of several files as one list of conversations."""

    def __init__(self, files: list[RowFile]) -> None:
        self.files = files
        self._starts = [sum(map(len, files[:number])) for number in range(len(files))]

    def __len__(self) -> int:
        return sum(map(len, self.files))

    def __getitem__(self, number: int) -> Talk:
        return parse_row(self.raw(number))

    def raw(self, number: int) -> Any:
        """A row as the file has it."""
        place = max(each for each, start in enumerate(self._starts) if start <= number)
        return self.files[place][number - self._starts[place]]

    def name(self, number: int) -> str:
        """File and place of a row, for messages."""
        place = max(each for each, start in enumerate(self._starts) if start <= number)
        return f"row {number - self._starts[place]} of {self.files[place].path}"


class TrainingSet(NamedTuple):
    """Rows that can be used, and what is known of all of them."""

    rows: Rows
    usable: list[int]  # numbers of rows
    has_image: list[bool]  # of each usable row
    facts: dict[str, Any]  # the content of RUN/data.json
    inputs: dict[str, dict[str, str]]  # file -> SHA-256, for the record of a run
    problems: list[str]  # of each row that was left out


def load_training_set(config: DataConfig, known: Path | None = None) -> TrainingSet:
    """Rows of all files, in their order, with every image looked at.

    Args:
        config: which data, and whether broken rows are skipped.
        known: file that keeps what is known of images, unless the settings name another; None to keep nothing.

    Returns:
        facts: `sources` (source, rows, sha256), `rows`, those `with_image` and `text_only`, `answers`, different
        `images`, `bad_rows` by kind, `broken` and `converted` images by kind, and `skipped` rows.

    Raises:
        ConfigError: no data, or no image folder though rows have images.
        DataError: a file that cannot be read, a broken row or image unless they are skipped, or nothing is left.
    """
    if not config.data:
        raise ConfigError("No training data: give files with --data.")
    rows = Rows([RowFile(Path(source)) for source in config.data])
    images, answers, problems = _scan(rows)
    names = {name for name in images.values() if name}
    if names and not config.images:
        raise ConfigError(f"{len(names):,} images are named in the data: give the folder of their paths with --images.")
    known = Path(config.image_check) if config.image_check else known
    found = ImageCheck(Path(config.images), known, config.max_pixels).look(names)
    broken = {number: found[name].message for number, name in images.items() if name and found[name].broken}
    listed = _list(rows, {number: str(error) for number, error in problems.items()} | broken)
    if listed and not config.skip_broken:
        raise DataError(_refusal(listed, len(rows)))
    usable = [number for number in images if number not in broken]
    if not usable:
        raise DataError(f"None of the {len(rows):,} rows can be used: nothing is left to train on.")
    hashes = {source: runs.file_sha256(Path(source)) for source in config.data}
    facts = {
        "sources": [
            {"source": source, "rows": len(file), "sha256": hashes[source]}
            for source, file in zip(config.data, rows.files, strict=True)
        ],
        "rows": len(rows),
        "with_image": sum(map(bool, images.values())),
        "text_only": sum(not name for name in images.values()),
        "answers": answers,
        "images": len(names),
        "bad_rows": dict(Counter(problem.kind for problem in problems.values())),
        **count_kinds(found),
        "skipped": len(problems) + len(broken),
    }
    return TrainingSet(rows, usable, [bool(images[number]) for number in usable], facts, {"data": hashes}, listed)


def only_images(found: TrainingSet) -> TrainingSet:
    """The same without rows of text alone, which have no gradient for the projector.

    Raises:
        DataError: no row has an image.
    """
    usable = [number for number, has_image in zip(found.usable, found.has_image, strict=True) if has_image]
    if not usable:
        raise DataError("No row has an image: there is nothing to train the projector with.")
    return found._replace(usable=usable, has_image=[True] * len(usable))


def _scan(rows: Rows) -> tuple[dict[int, str | None], int, dict[int, BadRow]]:
    """Image of every row that has a conversation, answers in all of them, and why the other rows have none."""
    images: dict[int, str | None] = {}
    problems: dict[int, BadRow] = {}
    answers = 0
    numbers = track(range(len(rows)), len(rows), "read rows") if runs.is_main_process() else range(len(rows))
    for number in numbers:
        try:
            talk = rows[number]
        except BadRow as error:
            problems[number] = error
            continue
        images[number] = talk.image
        answers += sum(turn.role == ASSISTANT for turn in talk.turns)
    return images, answers, problems


def _list(rows: Rows, problems: dict[int, str]) -> list[str]:
    return [f"{rows.name(number)}: {problem}" for number, problem in sorted(problems.items())]


def _refusal(listed: list[str], rows: int) -> str:
    shown = "".join(f"\n  {line}" for line in listed[:SHOWN])
    more = f"\n  and {len(listed) - SHOWN:,} more" if len(listed) > SHOWN else ""
    return (
        f"{len(listed):,} of {rows:,} rows cannot be used:{shown}{more}\nMend them, or leave them out with "
        "--skip-broken. `moslora data vision-language` counts them by kind."
    )
