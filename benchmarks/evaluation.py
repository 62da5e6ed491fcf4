"""Time of answering ARC-Easy questions: the authors' way, one question at a time, against `moslora eval commonsense`.

    OMP_NUM_THREADS=1 python -m benchmarks.evaluation --model llama-28m --data ../shared/data/commonsense

The authors' way is that of their commonsense_evaluate.py as their script calls it: batch size 1, transformers' beam
search with 4 beams and at most 32 tokens, the adapter beside the base. (On a CPU theirs also computes in float16 and
compiles; here both sides compute in float32 and do not.) The models are random, or the embedded one; a short training
first teaches them the form of the answers, as any fine-tuned model knows it. `--steps 0` leaves that out: then hardly
any output holds an answer word, and nothing can end early. On a CPU the seconds are those of the process.
"""

import argparse
import copy
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress
from torch import nn
from transformers import PreTrainedTokenizerFast

from moslora.tasks.commonsense import model as base_model
from moslora.tasks.commonsense.answering import Answerer
from moslora.tasks.commonsense.benchmarks import find_benchmark
from moslora.tasks.commonsense.data import Item, read_items
from moslora.tasks.commonsense.prompt import evaluation_prompt

from . import results
from .arms import attach
from .models import TARGETS, llama
from .options import device_of
from .timing import interleave, ratio, ratios

AUTHORS = "authors, one at a time"
WORDS = find_benchmark("ARC-Easy").words
CONTEXT = 12  # last tokens of the prompt that the short training sees


def main() -> None:
    """Measure and write benchmarks/results/evaluation-*.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", choices=("embedded", "llama-28m", "llama-60m"), default="llama-28m")
    parser.add_argument("--data", type=Path, default=results.ROOT.parent / "shared" / "data" / "commonsense")
    parser.add_argument("--questions", type=int, default=32)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=40, help="of the short training; 0 for none")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    options = parser.parse_args()
    results.require_correct("tests/tasks/commonsense/test_decoding.py", "tests/tasks/commonsense/test_ranking.py")
    arms = _arms(options)
    answers: dict[str, list[str]] = {}
    work = {name: lambda name=name, arm=arm: answers.update({name: arm()}) for name, arm in arms.items()}
    with Progress() as progress:
        task = progress.add_task("rounds", total=options.rounds + 1)
        clock = time.process_time if device_of(options) == "cpu" else time.perf_counter
        seconds = interleave(work, options.rounds, lambda: progress.advance(task), clock)
    rows = []
    for name in arms:
        same = sum(a == b for a, b in zip(answers[name], answers[AUTHORS], strict=True))
        each = 1000 * statistics.median(seconds[name]) / options.questions
        rows.append([name, str(ratio(seconds, AUTHORS, name)), f"{each:.0f}", f"{same} of {options.questions}"])
    results.print_table(
        "questions a second, over the authors' way", ["arm", "faster", "ms a question", "same answer"], rows
    )
    kind = "taught" if options.steps else "random"
    measured = {
        "faster": {name: ratios(seconds, [AUTHORS], [name])[AUTHORS][name] for name in arms},
        "seconds": seconds,
        "answered": {name: sum(map(bool, found)) for name, found in answers.items()},
        "same_answers": {row[0]: row[3] for row in rows},
    }
    settings = {**vars(options), "data": options.data.name}
    results.write(f"evaluation-{options.model}-{kind}-{device_of(options)}", device_of(options), settings, measured)


def _arms(options: argparse.Namespace) -> dict[str, Callable[[], list[str]]]:
    items = _some_batches(read_items(options.data / "ARC-Easy" / "test.json"), options.questions, options.batch)
    lessons = read_items(options.data / "ARC-Easy" / "train.json")
    base, tokenizer = _model(options.model, lessons)
    _teach(base, tokenizer, lessons, options.steps)
    adapted = attach("moslora", base, r=16, p=0.0, targets=TARGETS).eval().to(device_of(options))
    merged = copy.deepcopy(adapted).merge_and_unload()
    batched: dict[str, Any] = {"batch_size": options.batch}
    answerers = {
        AUTHORS: Answerer(adapted, tokenizer, batch_size=1, early_stop=False),
        "in batches": Answerer(adapted, tokenizer, early_stop=False, **batched),
        "in batches, merged": Answerer(merged, tokenizer, early_stop=False, **batched),
        "moslora eval": Answerer(merged, tokenizer, **batched),
        "moslora eval --merge no": Answerer(adapted, tokenizer, **batched),
        "moslora eval --decoding greedy": Answerer(merged, tokenizer, decoding="greedy", **batched),
        "moslora eval --decoding ranking": Answerer(merged, tokenizer, decoding="ranking", **batched),
    }
    return {name: lambda answerer=answerer: _answers(answerer, items) for name, answerer in answerers.items()}


def _some_batches(items: list[Item], count: int, size: int) -> list[Item]:
    """Batches from all over the questions in the order of their lengths, as a whole evaluation meets them."""
    items = sorted(items, key=lambda item: len(item["instruction"]))
    batches = count // size
    starts = [int((number + 0.5) * len(items) / batches) for number in range(batches)]
    return [item for start in starts for item in items[start : start + size]]


def _answers(answerer: Answerer, items: list[Item]) -> list[str]:
    rows = [row for batch in answerer.answer(items, WORDS) for row in batch]
    return [row["prediction"] for row in sorted(rows, key=lambda row: row["index"])]


def _model(name: str, lessons: list[Item]) -> tuple[nn.Module, Any]:
    if name == "embedded":
        return base_model.load_base(name, torch.float32), base_model.load_tokenizer(name)
    model = llama(name, torch.float32, "cpu")
    model.config.use_cache = model.generation_config.use_cache = True
    return model, _tokenizer(lessons, model.config.vocab_size)


def _tokenizer(lessons: list[Item], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer of the kind of Llama 3's, of these texts."""
    from tokenizers import ByteLevelBPETokenizer

    made = ByteLevelBPETokenizer()
    texts = [evaluation_prompt(item["instruction"]) + item["output"] for item in lessons]
    made.train_from_iterator(texts, vocab_size=size, special_tokens=["<pad>", "</s>"], show_progress=False)
    return PreTrainedTokenizerFast(tokenizer_object=made._tokenizer, pad_token="<pad>", eos_token="</s>")


def _teach(model: nn.Module, tokenizer: Any, lessons: list[Item], steps: int) -> None:
    """Train on the end of the prompts and on the answers."""
    torch.manual_seed(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(steps):
        batch = lessons[16 * step : 16 * step + 16]
        rows = []
        for item in batch:
            prompt, answer = (
                tokenizer(text, add_special_tokens=False)["input_ids"]
                for text in (evaluation_prompt(item["instruction"]), item["output"])
            )
            rows.append([*prompt[-CONTEXT:], *answer, tokenizer.eos_token_id])
        ids = tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        labels = ids["input_ids"].masked_fill(ids["attention_mask"] == 0, -100)
        model(**ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()


if __name__ == "__main__":
    main()
