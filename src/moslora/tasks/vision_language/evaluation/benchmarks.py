"""The benchmarks of the paper's Table 5 as rows of data. Pure Python.

The files are the TSV files of github.com/open-compass/VLMEvalKit, with which the paper was evaluated; their MD5 is what
that project checks a download against. A row whose file, prompt or rule changes gets a higher version, so that scores
of different rows are never mixed up.
"""

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Literal, NamedTuple, get_args

from ....errors import DataError
from .tsv import options

Kind = Literal["choice", "circular", "yes-no", "vqa", "mathvista", "mmvet"]
KINDS: tuple[Kind, ...] = get_args(Kind)
# Tokens generated at most. A letter or a word needs few; an explanation is judged as a whole.
MAX_NEW_TOKENS: Mapping[Kind, int] = {
    "choice": 16,
    "circular": 16,
    "yes-no": 16,
    "vqa": 32,
    "mathvista": 512,
    "mmvet": 512,
}
# Columns of Table 5, in the paper's order.
COLUMNS = ("MMBench EN", "MMBench CN", "SEED", "AI2D", "SciQA", "TextVQA", "MathVista", "MM-Vet", "MME")
_HOST = "https://opencompass.openxlab.space/utils/VLMEval"


class Benchmark(NamedTuple):
    """One benchmark as published."""

    name: str  # of the file, without .tsv
    kind: Kind  # how it is asked and scored
    column: str  # of Table 5
    questions: int  # that are scored; rotations of a question are no questions of their own
    md5: str  # of the file
    answers: bool = True  # False: kept by a leaderboard, which scores a submission file
    version: int = 1

    @property
    def url(self) -> str:
        """Where the file was published."""
        return f"{_HOST}/{self.name}.tsv"


BENCHMARKS = (
    Benchmark("MMBench_DEV_EN", "circular", "MMBench EN", 1164, "b6caf1133a01c6bb705cf753bb527ed8"),
    Benchmark("MMBench_TEST_EN", "circular", "MMBench EN", 1784, "6939fadb0ce626fefc0bdc9c64efc528", answers=False),
    Benchmark("MMBench_DEV_CN", "circular", "MMBench CN", 1164, "08b8fc3324a5ed74155350f57be69fbd"),
    Benchmark("MMBench_TEST_CN", "circular", "MMBench CN", 1784, "7e1239baf0ee4c8b513e19705a0f317e", answers=False),
    Benchmark("SEEDBench_IMG", "choice", "SEED", 14232, "68017231464752261a2526d6ca3a10c0"),
    Benchmark("AI2D_TEST", "choice", "AI2D", 3088, "0f593e0d1c7df9a3d69bf1f947e71975"),
    Benchmark("ScienceQA_TEST", "choice", "SciQA", 2017, "e42e9e00f9c59a80d8a5db35bc32b71f"),
    Benchmark("ScienceQA_VAL", "choice", "SciQA", 2097, "96320d05e142e585e7204e72affd29f3"),
    Benchmark("TextVQA_VAL", "vqa", "TextVQA", 5000, "b233b31f551bbf4056f2f955da3a92cd"),
    Benchmark("MathVista_MINI", "mathvista", "MathVista", 1000, "f199b98e178e5a2a20e7048f5dcb0464"),
    Benchmark("MMVet", "mmvet", "MM-Vet", 218, "748aa6d4aa9d4de798306a63718455e3"),
    Benchmark("MME", "yes-no", "MME", 2374, "b36b43c3f09801f5d368627fb92187c3"),
)


def find_benchmark(name: str) -> Benchmark | None:
    """The row of a name; None for a benchmark of one's own."""
    return next((row for row in BENCHMARKS if row.name == name), None)


def benchmark_file(data: Path, name: str) -> Path:
    """The file DATA/NAME.tsv.

    Raises:
        DataError: there is none.
    """
    path = data / f"{name}.tsv"
    if path.is_file():
        return path
    found = ", ".join(sorted(each.stem for each in data.glob("*.tsv"))) or "none"
    row = find_benchmark(name)
    hint = f" VLMEvalKit publishes it at {row.url}." if row else ""
    raise DataError(f"No benchmark {name!r}: expected the file {path}. Found in {data}: {found}.{hint}")


def kind_of(name: str, rows: Iterable[Mapping[str, str]], asked: Kind | None = None) -> Kind:
    """How a benchmark is asked and scored: as published, as asked for, or as its options tell.

    Args:
        name: of the benchmark.
        rows: of its file.
        asked: what `--kind` says, for a benchmark of one's own.

    Raises:
        DataError: `asked` is not what was published, or a file of one's own has no options and nothing was asked.
    """
    row = find_benchmark(name)
    if row and asked not in (None, row.kind):
        raise DataError(f"{name} is published as kind {row.kind!r}, not {asked!r}: give the file another name.")
    if row or asked:
        return row.kind if row else asked  # type: ignore[return-value]
    if all(options(each) for each in rows):
        return "choice"
    raise DataError(
        f"{name} is not a benchmark of the paper, and not every row has options A, B, ...: say how it is scored with "
        f"--kind, one of {', '.join(KINDS)}."
    )


def file_hashes(path: Path) -> dict[str, str]:
    """MD5, which VLMEvalKit publishes, and SHA-256 of a file, read once."""
    md5, sha256 = hashlib.md5(usedforsecurity=False), hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(1 << 20):
            md5.update(part)
            sha256.update(part)
    return {"md5": md5.hexdigest(), "sha256": sha256.hexdigest()}


def is_published(name: str, md5: str) -> bool | None:
    """Whether a file is the published one; None for a benchmark of one's own."""
    row = find_benchmark(name)
    return None if row is None else row.md5 == md5
