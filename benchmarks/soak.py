"""Save, load and resume many times in one process, and see whether memory, files or disk grow.

    python -m benchmarks.soak --cycles 1000

A cycle begins a run of the small Llama of the tests' size, saves a checkpoint, stops, resumes it from there in a fresh
trainer, ends it, and loads the saved adapter. Memory is compared between the first and the last tenth of the cycles, by
their medians, after a garbage collection. Writes benchmarks/results/soak.json.
"""

import argparse
import contextlib
import gc
import json
import os
import shutil
import statistics
import tempfile
import warnings
from pathlib import Path

import peft
import psutil
import transformers

from moslora import runs
from moslora.errors import Stopped
from moslora.tasks import trainer
from moslora.tasks.commonsense.config import CommonsenseTrainConfig
from moslora.tasks.commonsense.train import train
from tests.tasks.commonsense.conftest import make_items, write_model

RESULT = Path(__file__).parent / "results" / "soak.json"
WARM_UP = 0.05  # share of the cycles at the beginning, in which caches fill


def cycle(config: CommonsenseTrainConfig, folder: Path, base: Path) -> None:
    """One run that is stopped after its first step, resumed, ended and loaded."""
    wanted, trainer.StopSignals.wanted = trainer.StopSignals.wanted, lambda self: True
    try:
        with contextlib.suppress(Stopped):
            train(config, folder)
    finally:
        trainer.StopSignals.wanted = wanted
    record = train(config, folder)
    assert record["resumed_from_steps"] == [1], record
    peft.PeftModel.from_pretrained(transformers.AutoModelForCausalLM.from_pretrained(base), folder / "adapter")
    shutil.rmtree(folder)


def main() -> None:
    """Run the cycles and write what was seen."""
    parser = argparse.ArgumentParser(description="Save, load and resume many times.")
    parser.add_argument("--cycles", type=int, default=1000)
    cycles = parser.parse_args().cycles
    warnings.simplefilter("ignore")
    transformers.utils.logging.disable_progress_bar()
    process, rows = psutil.Process(), []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        items = make_items(16, seed=0)
        (folder / "train.json").write_text(json.dumps(items), encoding="utf-8")
        base = write_model(folder / "model", [item["instruction"] + item["output"] for item in items])
        config = CommonsenseTrainConfig(
            model=str(base),
            data=(str(folder / "train.json"),),
            rank=4,
            alpha=8,
            batch_size=4,
            max_steps=2,
            max_tokens=32,
            logging_steps=1,
            save_steps=1,
        )
        with open(os.devnull, "w", encoding="utf-8") as nowhere, contextlib.redirect_stderr(nowhere):
            for number in range(cycles):
                cycle(config, folder / "run", base)
                gc.collect()
                disk = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
                rows.append((process.memory_info().rss, process.num_fds(), process.num_threads(), disk))
                if number % 50 == 0:
                    print(number, *rows[-1], flush=True)
    part = max(1, cycles // 10)
    start = int(WARM_UP * cycles)
    names = ("resident_bytes", "open_files", "threads", "disk_bytes")
    first, last = (
        {key: statistics.median(row[place] for row in some) for place, key in enumerate(names)}
        for some in (rows[start : start + part], rows[-part:])
    )
    result = {"cycles": cycles, "first_tenth": first, "last_tenth": last, "versions": runs.versions()}
    runs.write_json(RESULT, result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
