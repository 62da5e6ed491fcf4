"""The eight benchmarks of the paper as rows of data. Pure Python.

The files are `dataset/NAME/test.json` of github.com/AGI-Edgerunners/LLM-Adapters, which the authors of the paper use.
A row whose file or answer words change gets a higher version, so that scores of different rows are never mixed up.
"""

import gzip
import hashlib
from pathlib import Path
from typing import NamedTuple


class Benchmark(NamedTuple):
    """One benchmark as published."""

    name: str
    words: tuple[str, ...]  # the protocol looks for all of these, also where a question offers fewer
    questions: int  # in the test file
    chance: float  # expected accuracy of guessing among the options that each question offers, in [0, 1]
    sha256: str | None  # of test.json, uncompressed; None where no original file was at hand to be hashed
    version: int


_ANSWERS = ("answer1", "answer2", "answer3", "answer4", "answer5")
_ENDINGS = ("ending1", "ending2", "ending3", "ending4")

# ARC has 7 and 4 questions with three options, and 4 and 3 with five; hence their chance.
BENCHMARKS = (
    Benchmark(
        "boolq", ("true", "false"), 3270, 1 / 2, "89df2397cbca81dc31adcc6f7f5b635821aa0565aafde46725b2b4bd39b4dfa9", 1
    ),
    Benchmark(
        "piqa",
        ("solution1", "solution2"),
        1838,
        1 / 2,
        "3860d11b9b42e590b6b4bbc1643214d373ed0b0d4ac62fcc7bdceb8e044ad141",
        1,
    ),
    Benchmark(
        "social_i_qa", _ANSWERS, 1954, 1 / 3, "71543f41127451945379d106ffedaef502f1c8770dff6d2f543aca85e3080b1d", 1
    ),
    Benchmark("hellaswag", _ENDINGS, 10042, 1 / 4, None, 1),
    Benchmark(
        "winogrande",
        ("option1", "option2"),
        1267,
        1 / 2,
        "6946f5209e7114c65c6d04f8f644c5a061af20d730b1cfe158fff3dc44076fb9",
        1,
    ),
    Benchmark(
        "ARC-Easy",
        _ANSWERS,
        2376,
        (2365 / 4 + 7 / 3 + 4 / 5) / 2376,
        "3f32a84716ca6d57d38728bf80cc8117aecd17445c2cf29a68b571b810eb82dc",
        1,
    ),
    Benchmark(
        "ARC-Challenge",
        _ANSWERS,
        1172,
        (1165 / 4 + 4 / 3 + 3 / 5) / 1172,
        "4a89ce368ae01a71d268d9851686738b2a0a1d84271116bab49a1dd2b48ecad7",
        1,
    ),
    Benchmark(
        "openbookqa", _ANSWERS, 500, 1 / 4, "8479930f7b8a26052c78250280b5465a4016ca7fc806af440d0f37e243f3099e", 1
    ),
)


def find_benchmark(name: str) -> Benchmark | None:
    """The row of a name; None for a benchmark of one's own."""
    return next((row for row in BENCHMARKS if row.name == name), None)


def content_sha256(path: Path) -> str:
    """SHA-256 of a test file's content, the same for test.json and test.json.gz."""
    content = path.read_bytes()
    return hashlib.sha256(gzip.decompress(content) if path.suffix == ".gz" else content).hexdigest()


def is_published(name: str, sha256: str) -> bool | None:
    """Whether a file is the published one; None if that is unknown, as for HellaSwag and benchmarks of one's own."""
    row = find_benchmark(name)
    return None if row is None or row.sha256 is None else row.sha256 == sha256
