"""Build a study: match the pictures of two methods, make them anonymous, and set up the database.

STUDY/study.json     what the study is of: methods, runs, settings; only its owner reads it
STUDY/study.sqlite   pairs, raters and votes; no method and no run
STUDY/pictures/      every picture, under a random name
"""

import dataclasses
import random
import shutil
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .... import runs
from ....errors import ConfigError, RunError
from ...progress import progress_bar
from .blind import LONGEST_REFERENCE, Stored, alike, noise, open_picture, store
from .folders import Folder, Match, match, read_folder, reference_files
from .store import create

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclasses.dataclass(frozen=True, kw_only=True)
class StudyConfig:
    """Settings of a study."""

    pairs: tuple[tuple[Path, Path], ...]
    """Folders of A and B, one pair a subject."""
    references: tuple[Path, ...] = ()
    """Folders of reference photographs, one for each pair, or one for all; those of the runs by default."""
    names: tuple[str, ...] = ()
    """Names of A and B in tables; the methods of the runs by default."""
    subjects: tuple[str, ...] = ()
    """Names of the subjects, one for each pair; those of the folders of photographs by default."""
    title: str = "Comparing pictures"
    """Shown to raters."""
    prompts: int | None = None
    """So many prompts of each subject, drawn at random; all by default."""
    per_prompt: int | None = None
    """So many pictures of each prompt, drawn at random; all by default."""
    checks: int = 2
    """Attention checks of each of the two kinds."""
    longest: int = 1024
    """Longer side of a picture, in pixels; larger ones are made smaller."""
    quality: int | None = None
    """Of lossy WebP, 1 to 100, for slow lines; every pixel as it is by default."""
    seed: int = 0
    """Draws prompts, checks, and what each rater sees."""

    def __post_init__(self) -> None:
        problems = []
        if not self.pairs:
            problems.append("no pair of runs")
        if len(self.references) not in (0, 1, len(self.pairs)):
            problems.append(f"{len(self.references)} folders of references for {len(self.pairs)} pairs of runs")
        if len(self.names) not in (0, 2):
            problems.append(f"{len(self.names)} names for two methods")
        if self.subjects and len(self.subjects) != len(self.pairs):
            problems.append(f"{len(self.subjects)} names of subjects for {len(self.pairs)} pairs of runs")
        if len(set(self.subjects)) < len(self.subjects):
            problems.append("a subject is named twice")
        problems += [
            f"{name} is {value}, but has to be at least {least}"
            for name, value, least in (
                ("prompts", self.prompts, 1),
                ("per_prompt", self.per_prompt, 1),
                ("checks", self.checks, 0),
                ("longest", self.longest, 64),
            )
            if value is not None and value < least
        ]
        if self.quality is not None and not 1 <= self.quality <= 100:
            problems.append(f"quality is {self.quality}, but has to be 1 to 100")
        if problems:
            raise ConfigError("A study cannot be built: " + "; ".join(problems) + ".")


@dataclasses.dataclass(frozen=True)
class Subject:
    """The pairs of one subject."""

    name: str
    a: Folder
    b: Folder
    references: list[Path]
    matches: list[Match]
    alone: list[str]  # a sentence about every picture without partner


def build_study(config: StudyConfig, out: Path) -> dict[str, Any]:
    """Write a study.

    Args:
        config: what to compare.
        out: folder of the study; new or empty.

    Returns:
        content of study.json; `unmatched` and `reshaped` say what was left out or cut.

    Raises:
        ConfigError: the folders are of different methods, or more prompts are asked for than there are.
        DataError: pictures or photographs that cannot be used.
        RunError: `out` holds something, or a run is not finished.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise RunError(f"{out} exists and is not an empty folder. Nothing was changed; choose another --out.")
    subjects = _subjects(config)
    methods = _methods(config, subjects)
    unfinished = out.with_name(f".{out.name}.building")
    shutil.rmtree(unfinished, ignore_errors=True)
    (unfinished / "pictures").mkdir(parents=True)
    try:
        connection = create(unfinished, config.title, config.seed)
        writer = _Writer(config, unfinished / "pictures", connection)
        connection.execute("BEGIN")
        reshaped = writer.write(subjects)
        connection.execute("COMMIT")
        connection.close()
        study = _record(config, subjects, methods, reshaped)
        runs.write_json(unfinished / "study.json", study)
        if out.exists():
            out.rmdir()
        unfinished.rename(out)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return study


def _subjects(config: StudyConfig) -> list[Subject]:
    subjects: list[Subject] = []
    for number, (path_a, path_b) in enumerate(config.pairs):
        name_a, name_b = config.names or (None, None)
        a, b = read_folder(path_a, name_a), read_folder(path_b, name_b)
        given = config.references[number if len(config.references) > 1 else 0] if config.references else None
        photographs = given or a.references or b.references
        if photographs is None:
            raise ConfigError(
                f"Nothing says where the reference photographs of {path_a} and {path_b} are: name their folder with "
                "--references DIR."
            )
        name = config.subjects[number] if config.subjects else photographs.resolve().name
        if name in (subject.name for subject in subjects):
            raise ConfigError(f"Two pairs are of the subject {name!r}: name each with --subjects.")
        matches, alone = match(a, b)
        chosen = _chosen(config, name, matches)
        subjects.append(Subject(name, a, b, reference_files(photographs), chosen, alone))
    return subjects


def _methods(config: StudyConfig, subjects: Sequence[Subject]) -> tuple[str, str]:
    found = {(subject.a.method, subject.b.method) for subject in subjects}
    if len(found) > 1:
        listed = ", ".join(sorted(f"{a} with {b}" for a, b in found))
        raise ConfigError(
            f"The pairs compare different methods: {listed}. Put the runs of one method first in every pair, or name "
            "both with --names A B."
        )
    (a, b) = found.pop()
    if a == b:
        raise ConfigError(f"Both sides are called {a!r}: tell them apart with --names A B.")
    return a, b


def _chosen(config: StudyConfig, subject: str, matches: list[Match]) -> list[Match]:
    """The prompts and pictures that a subject is asked about."""
    draw = random.Random(runs.stream_seed(config.seed, f"prompts/{subject}"))
    prompts = list(dict.fromkeys(each.a.prompt for each in matches))
    if config.prompts is not None:
        if config.prompts > len(prompts):
            raise ConfigError(f"{config.prompts} prompts are asked for, but {subject} has {len(prompts)}.")
        prompts = draw.sample(prompts, config.prompts)
    chosen = []
    for prompt in sorted(prompts, key=lambda prompt: next(m.a.prompt_index for m in matches if m.a.prompt == prompt)):
        own = [each for each in matches if each.a.prompt == prompt]
        chosen += own if config.per_prompt is None else draw.sample(own, min(config.per_prompt, len(own)))
    return chosen


class _Writer:
    """Fills the pictures and the database of a new study."""

    def __init__(self, config: StudyConfig, folder: Path, connection: sqlite3.Connection) -> None:
        self.config = config
        self.folder = folder
        self.connection = connection
        self.draw = random.Random(runs.stream_seed(config.seed, "build"))

    def write(self, subjects: Sequence[Subject]) -> int:
        """Everything; returns how many pairs had to be cut to one shape."""
        items: list[tuple[Any, ...]] = []
        reshaped = 0
        with progress_bar() as bar:
            task = bar.add_task("pairs", total=sum(len(each.matches) for each in subjects), note="")
            for number, subject in enumerate(subjects, 1):
                self.connection.execute("INSERT INTO subjects VALUES (?, ?)", (number, subject.name))
                for path in subject.references:
                    picture = self._store(open_picture(path, LONGEST_REFERENCE))
                    self.connection.execute("INSERT INTO photographs VALUES (?, ?)", (number, picture.id))
                for each in subject.matches:
                    a, b = (open_picture(side.path, self.config.longest) for side in each)
                    reshaped += abs(a.width * b.height - b.width * a.height) > max(a.width, b.width)
                    items.append(("pair", number, *_facts(each), *(self._store(side).id for side in alike(a, b))))
                    bar.advance(task)
        for kind in ("same", "noise") * self.config.checks:
            number = self.draw.randrange(len(subjects)) + 1
            items.append(self._check(kind, number, subjects[number - 1]))
        self.draw.shuffle(items)
        columns = "kind, subject, prompt, prompt_index, seed, a, b"
        self.connection.executemany(f"INSERT INTO items ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?)", items)
        return reshaped

    def _check(self, kind: str, number: int, subject: Subject) -> tuple[Any, ...]:
        """An attention check: a picture beside itself, or a photograph (B) beside noise (A)."""
        like = self.draw.choice(subject.matches)
        if kind == "same":
            a = b = open_picture(like[self.draw.randrange(2)].path, self.config.longest)
        else:
            b = open_picture(self.draw.choice(subject.references), LONGEST_REFERENCE)
            a = noise(b.size, self.draw.randrange(2**32))
        return kind, number, *_facts(like), self._store(a).id, self._store(b).id

    def _store(self, picture: "Image") -> Stored:
        stored = store(picture, self.folder, self.config.quality)
        self.connection.execute("INSERT INTO pictures VALUES (?, ?, ?)", stored)
        return stored


def _facts(each: Match) -> tuple[str, int, int]:
    return each.a.prompt, each.a.prompt_index, each.a.seed


def _record(
    config: StudyConfig, subjects: Sequence[Subject], methods: tuple[str, str], reshaped: int
) -> dict[str, Any]:
    settings = {
        field.name: getattr(config, field.name)
        for field in dataclasses.fields(config)
        if field.name not in ("pairs", "references", "names", "subjects")
    }
    return {
        "a": methods[0],
        "b": methods[1],
        "created": runs.now(),
        "settings": settings,
        "subjects": [
            {
                "name": subject.name,
                "run_a": str(subject.a.path),
                "run_b": str(subject.b.path),
                "references": len(subject.references),
                "prompts": len({each.a.prompt for each in subject.matches}),
                "pairs": len(subject.matches),
            }
            for subject in subjects
        ],
        "unmatched": [sentence for subject in subjects for sentence in subject.alone],
        "reshaped": reshaped,
        "versions": runs.versions(),
        "git": runs.git_state(),
    }
