"""Show the whole path offline in a few minutes: compare methods, look at the report, export, load in stock PEFT.

    moslora demo --out demo

Uses the small model and the eight small benchmarks that come with the package. Every step is a command that is printed
before it runs. A finished step is not repeated; remove the folder to see all of it again.
"""

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

from ..errors import MoSLoRAError
from ._steps import moslora

RECIPE = "commonsense/embedded"
METHODS = ("lora", "moslora")
LEARNING_RATE = 3e-3
SEEDS = (0, 1)

# Runs in a process that never sees moslora: what a user of plain PEFT would write.
STOCK_PEFT = """
import sys
import peft, safetensors.torch, torch, transformers

base, adapter, prompts, logits = sys.argv[1:]
frozen = transformers.AutoModelForCausalLM.from_pretrained(base, dtype="float32")
model = peft.PeftModel.from_pretrained(frozen, adapter).eval()
with torch.inference_mode():
    outputs = {name: model(ids).logits for name, ids in safetensors.torch.load_file(prompts).items()}
safetensors.torch.save_file(outputs, logits)
assert "moslora" not in sys.modules
"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora demo`."""

    out: Path = Path("demo")
    """Folder for everything the demo makes."""

    def run(self) -> None:
        """Run every step and say where its results are."""
        from ..compare.study import Cell
        from ..embedded import BENCHMARKS, write_questions

        start = time.perf_counter()
        data, study, exported = self.out / "data", self.out / "study", self.out / "exported"
        write_questions(data)
        moslora(
            *("compare", "commonsense", "--recipe", RECIPE, "--data", str(data / "train.json")),
            *("--tests", str(data), "--benchmarks", *BENCHMARKS, "--eval", "decoding=ranking"),
            *("--methods", *METHODS, "--learning-rates", str(LEARNING_RATE), "--seeds", *map(str, SEEDS)),
            *("--validation-size", "0", "--jobs", str(min(2, os.cpu_count() or 1)), "--out", str(study)),
        )
        adapter = study / "cells" / Cell("moslora", LEARNING_RATE, SEEDS[0], 1.0).name / "adapter"
        if not exported.exists():
            moslora("export", adapter, exported, "--format", "peft")
        self._compare_with_stock_peft(adapter, exported, data / "toy-arc-e" / "test.json")
        print(f"\n{len(SEEDS)} seeds: enough to show that every part works, too few to rank methods.")
        print(f"Open {(study / 'report' / 'report.html').resolve()}")
        print(f"Finished in {time.perf_counter() - start:.0f} s. Everything is in {self.out.resolve()}")

    def _compare_with_stock_peft(self, adapter: Path, exported: Path, questions: Path) -> None:
        """Load the exported plain LoRA without moslora, in another process, and compare its logits with MoSLoRA's."""
        import peft
        import safetensors.torch
        import torch

        from ..embedded import model_folder
        from ..tasks.commonsense.data import read_items
        from ..tasks.commonsense.model import load_base, load_tokenizer
        from ..tasks.commonsense.prompt import evaluation_ids
        from ..tasks.models import EMBEDDED

        print("\nstock PEFT, in another process, loads the export")
        tokenizer = load_tokenizer(EMBEDDED)
        items = read_items(questions, needs=("instruction",))[:50]
        prompts = {
            str(number): torch.tensor([ids]) for number, ids in enumerate(evaluation_ids(items, tokenizer, "chat"))
        }
        files = self.out / "prompts.safetensors", self.out / "logits.safetensors"
        safetensors.torch.save_file(prompts, files[0])
        words = [sys.executable, "-W", "ignore", "-c", STOCK_PEFT, model_folder(), exported, *files]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        if done.returncode:
            raise MoSLoRAError(f"Stock PEFT cannot load {exported}: {done.stderr.strip().splitlines()[-1]}")

        base = load_base(EMBEDDED, torch.float32)
        model = peft.PeftModel.from_pretrained(base, adapter).eval()
        theirs = safetensors.torch.load_file(files[1])
        with torch.inference_mode():
            ours = {name: model(ids).logits for name, ids in prompts.items()}
        largest = max(float((ours[name] - theirs[name]).abs().max() / ours[name].abs().max()) for name in ours)
        same = sum(bool((ours[name].argmax(-1) == theirs[name].argmax(-1)).all()) for name in ours)
        print(
            f"  largest relative difference of the logits {largest:.1e}; same best token everywhere in "
            f"{same} of {len(ours)} prompts"
        )
        if largest > 1e-4:
            raise MoSLoRAError(f"The export in {exported} does not compute what the adapter does.")
