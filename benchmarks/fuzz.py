"""Feed damaged files and requests to everything that reads what strangers made, many times.

    python -m benchmarks.fuzz --cases 100000

The cases are those of tests/fuzz. Hypothesis draws half of them; atheris, where it is installed, chooses the other half
by the lines of the package that they reach. results/fuzz.json says how many each reader got, took, and refused with
which of the package's errors, and every crash: any other error, or a case of more than LONGEST seconds.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, seed, settings
from rich.progress import track

COVERAGE = "--coverage"  # of this process: atheris has to see the package's imports
if COVERAGE in sys.argv:
    import atheris

    watched = atheris.instrument_imports(include=["moslora"])
else:
    watched = nullcontext()
with watched:
    from moslora.errors import MoSLoRAError
    from tests.fuzz.readers import READERS, empty_folder

RESULTS = Path(__file__).parent / "results" / "fuzz.json"
LONGEST = 20  # seconds of one case
PACKAGES = ("hypothesis", "atheris", "pillow", "safetensors", "pyarrow", "transformers", "fastapi")
CHUNK = 500  # cases of one run of hypothesis


class Hang(BaseException):
    """A case that took longer than `LONGEST` seconds."""


class Counted:
    """A reader, and what came of its cases."""

    def __init__(self, name: str) -> None:
        self.reader = READERS[name]
        self.counts: Counter[str] = Counter()
        self.crashes: dict[str, str] = {}  # kind -> the first case

    def read(self, content: bytes) -> None:
        """One case."""
        self.counts["cases"] += 1
        signal.alarm(LONGEST)
        try:
            with empty_folder() as folder:
                self.reader.read(content, folder)
            self.counts["taken"] += 1
        except MoSLoRAError as error:
            self.counts[type(error).__name__] += 1
        except (Exception, Hang) as error:
            self.counts["crashes"] += 1
            self.crashes.setdefault(f"{type(error).__name__}: {error}"[:200], repr(content)[:2000])
        finally:
            signal.alarm(0)

    def test(self, cases: int, number: int) -> Callable[[], None]:
        """A test of hypothesis that reads so many cases."""
        options = settings(max_examples=cases, deadline=None, database=None, suppress_health_check=list(HealthCheck))

        @seed(number)
        @options
        @given(self.reader.damage(self.reader.seeds()))
        def test(content: bytes) -> None:
            self.read(content)

        return test

    def write(self, out: Path) -> None:
        """What came of it, as JSON."""
        out.write_text(json.dumps({**self.counts, "crash": self.crashes}))


def draw(counted: Counted, cases: int, number: int) -> None:
    """Cases that hypothesis draws; it stops early where it has seen everything small, so it begins again."""
    while (left := cases - counted.counts["cases"]) > 0:
        counted.test(min(CHUNK, left), number)()
        number += 1


def cover(counted: Counted, cases: int, number: int, out: Path) -> None:
    """Cases that atheris chooses. The process ends with them."""
    one = counted.test(cases, number).hypothesis.fuzz_one_input  # type: ignore[attr-defined]

    def target(data: bytes) -> None:
        one(data)
        if counted.counts["cases"] >= cases:
            counted.write(out)
            os._exit(0)  # libFuzzer has no other way out

    start, corpus = random.Random(number), out.with_suffix(".corpus")
    corpus.mkdir()
    for each in range(50):  # choices that hypothesis could have made, to begin with
        (corpus / str(each)).write_bytes(start.randbytes(400))
    atheris.Setup([sys.argv[0], str(corpus), f"-seed={number + 1}", "-max_len=4096", "-verbosity=0"], target)
    atheris.Fuzz()


def survey(names: list[str], cases: int, number: int) -> dict[str, Any]:
    """What came of every reader, each of which runs in processes of its own, as many at a time as there are cores."""
    engines = [[], [COVERAGE]] if importlib.util.find_spec("atheris") else [[]]
    each = -(-cases // (len(names) * len(engines)))
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:

        def both(name: str) -> dict[str, Any]:
            parts = [_apart(name, each, number, engine, Path(folder)) for engine in engines]
            crashes = {kind: case for part in parts for kind, case in part.pop("crash").items()}
            return {**sum(map(Counter, parts), Counter()), "crash": crashes}

        return dict(zip(names, track(pool.map(both, names), "fuzz", len(names)), strict=True))


def _apart(name: str, cases: int, number: int, engine: list[str], folder: Path) -> dict[str, Any]:
    """What came of one reader with one engine, in a process of its own."""
    out = folder / f"{name}{''.join(engine)}.json"
    words = ["--one", name, "--out", str(out), "--cases", str(cases), "--seed", str(number), *engine]
    ended = subprocess.run([sys.executable, "-m", "benchmarks.fuzz", *words], capture_output=True, text=True)
    if not out.exists():
        raise RuntimeError(f"{name}: the process ended with {ended.returncode}: {ended.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(out.read_text())
    return found


def _hang(*_: object) -> None:
    raise Hang(f"longer than {LONGEST} seconds")


def main() -> None:
    """Run every reader and write the table; or, in a process of its own, one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", type=int, default=100_000, help="of all readers together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--readers", nargs="*", default=list(READERS), choices=list(READERS))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    parser.add_argument(COVERAGE, action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if not arguments.one:
        found = survey(arguments.readers, arguments.cases, arguments.seed)
        known = {each.name.lower() for each in importlib.metadata.distributions()}
        versions = {name: importlib.metadata.version(name) for name in PACKAGES if name in known}
        total = sum(each["cases"] for each in found.values())
        crashes = sum(each.get("crashes", 0) for each in found.values())
        arguments.out.write_text(
            json.dumps({"cases": total, "crashes": crashes, "versions": versions, "readers": found}, indent=1) + "\n"
        )
        print(f"{total:,} cases, {crashes} crashes: {arguments.out}")
        return
    signal.signal(signal.SIGALRM, _hang)
    warnings.simplefilter("ignore")
    counted = Counted(arguments.one)
    if arguments.coverage:
        cover(counted, arguments.cases, arguments.seed, arguments.out)
    draw(counted, arguments.cases, arguments.seed)
    counted.write(arguments.out)


if __name__ == "__main__":
    main()
