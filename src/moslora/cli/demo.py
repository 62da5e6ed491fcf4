"""Show the whole path offline in a minute: train, evaluate, export, load in stock PEFT, compare.

    moslora demo --out demo

Uses the small model and the questions that come with the package. Every step is a command that is printed before it
runs. A finished step is not repeated; remove the folder to see all of it again.
"""

import dataclasses
import shlex
import subprocess
import sys
import time
from pathlib import Path

from ..errors import MoSLoRAError

RECIPE = "commonsense/embedded"
METHODS = ("lora", "moslora")

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
        """Run every step, then leave a table and two figures in `out`."""
        from ..embedded import BENCHMARKS, write_questions

        start = time.perf_counter()
        data = self.out / "data"
        write_questions(data)
        evaluation = ("--data", data, "--benchmarks", *BENCHMARKS, "--decoding", "greedy")
        for method in METHODS:
            _train(data, method, self.out / method)
            _moslora("eval", "commonsense", "--run", self.out / method, *evaluation)
        _moslora("eval", "commonsense", "--run", self.out / METHODS[0], *evaluation, "--base-only")
        exported = self.out / "exported"
        if not exported.exists():
            _moslora("export", self.out / "moslora" / "adapter", exported, "--format", "peft")
        self._compare_with_stock_peft(exported, data / BENCHMARKS[0] / "test.json")
        self._report()
        print(f"Finished in {time.perf_counter() - start:.0f} s. Everything is in {self.out.resolve()}")

    def _compare_with_stock_peft(self, exported: Path, questions: Path) -> None:
        """Load the exported plain LoRA without moslora, in another process, and compare its logits with MoSLoRA's."""
        import peft
        import safetensors.torch
        import torch

        from ..embedded import model_folder
        from ..tasks.commonsense.data import read_items
        from ..tasks.commonsense.model import EMBEDDED, load_base, load_tokenizer
        from ..tasks.commonsense.prompt import evaluation_prompt

        print("\nstock PEFT, in another process, loads the export")
        tokenizer = load_tokenizer(EMBEDDED)
        prompts = {
            str(number): tokenizer(evaluation_prompt(item["instruction"]), return_tensors="pt")["input_ids"]
            for number, item in enumerate(read_items(questions, needs=("instruction",))[:50])
        }
        files = self.out / "prompts.safetensors", self.out / "logits.safetensors"
        safetensors.torch.save_file(prompts, files[0])
        words = [sys.executable, "-W", "ignore", "-c", STOCK_PEFT, model_folder(), exported, *files]
        done = subprocess.run(list(map(str, words)), capture_output=True, text=True, check=False)
        if done.returncode:
            raise MoSLoRAError(f"Stock PEFT cannot load {exported}: {done.stderr.strip().splitlines()[-1]}")

        base = load_base(EMBEDDED, torch.float32)
        model = peft.PeftModel.from_pretrained(base, self.out / "moslora" / "adapter").eval()
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

    def _report(self) -> None:
        from rich.console import Console
        from rich.table import Table

        from ..report.figures import draw_accuracies, draw_losses
        from ..report.summary import markdown, summarize, summarize_base, table

        folders = {method: self.out / method for method in METHODS}
        summaries = [summarize_base(self.out / METHODS[0]), *map(summarize, folders.values())]
        draw_losses(folders, self.out / "losses.png")
        draw_accuracies(summaries, self.out / "accuracies.png")
        header, *rows = table(summaries)
        (self.out / "results.md").write_text(markdown([header, *rows]), encoding="utf-8")
        printed = Table(*header)
        for row in rows:
            printed.add_row(*row)
        Console().print(printed)
        print("One seed on a toy task: the table shows that every part works, not which method is better.")
        print(f"Table: {self.out / 'results.md'}. Figures: {self.out / 'losses.png'}, {self.out / 'accuracies.png'}.")


def _train(data: Path, method: str, out: Path) -> None:
    from .. import runs

    if (out / "run.json").exists() and runs.read_json(out / "run.json").get("status") == "done":
        print(f"\n{out} is there already.")
        return
    files = ("--recipe", RECIPE, "--data", data / "train.json")
    _moslora("train", "commonsense", *files, "--method", method, "--out", out)


def _moslora(*words: str | Path) -> None:
    """Print a command line and run it."""
    from . import main

    texts = list(map(str, words))
    print(f"\n$ moslora {shlex.join(texts)}", flush=True)
    if main(texts):
        raise MoSLoRAError(f"`moslora {shlex.join(texts[:2])}` failed; what it says is above.")
