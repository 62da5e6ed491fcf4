"""From a row of a benchmark to the words that the model reads after its image. Pure Python.

Source: the prompts of LLaVA-1.5 as VLMEvalKit's `LLaVA_XTuner` asks them, with which the paper was evaluated.
"""

import re
from collections.abc import Mapping

from .benchmarks import Kind
from .mathvista import question_text
from .tsv import options

CHOOSE = "Answer with the option's letter from the given choices directly."
CHOOSE_CHINESE = "请直接回答选项字母。"
SHORTLY = "Answer the question using a single word or phrase."
YES_OR_NO = "Please answer yes or no."


def prompt(row: Mapping[str, str], kind: Kind) -> str:
    """The question as it is put to the model.

    Args:
        row: of the benchmark.
        kind: of the benchmark. Questions of MM-Vet are put as they are in the file.
    """
    question = row["question"].strip()
    if kind in ("choice", "circular"):
        hint = row.get("hint", "").strip()
        lines = [*([hint] if hint else []), question]
        lines += [f"{letter}. {text}" for letter, text in options(row).items()]
        return "\n".join([*lines, CHOOSE_CHINESE if is_chinese("\n".join(lines)) else CHOOSE])
    if kind == "mathvista":
        return question_text(row)
    if kind == "vqa":
        return f"{question}\n{SHORTLY}"
    if kind == "yes-no" and not re.search(r"yes (?:or|/) no", question, re.IGNORECASE):
        return f"{question} {YES_OR_NO}"
    return question


def is_chinese(text: str) -> bool:
    """Whether a text holds a Chinese character."""
    return re.search(r"[\u4e00-\u9fff]", text) is not None
