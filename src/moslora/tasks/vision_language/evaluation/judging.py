"""From what a model wrote to the answer that is scored: by a rule, else by a judge, else none. Pure Python.

No option is ever drawn at random: an answer that nobody finds is lost, and counted as lost.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from . import mathvista
from .benchmarks import Kind
from .matching import match_option, match_yes_no
from .mmvet import grade_plainly, parse_grade
from .tsv import options

# Prompts and the meaning of a reply -> the meaning for each prompt; what `Judge.ask` does with its cache chosen.
Ask = Callable[[Sequence[str], Callable[[str], Any]], list[Any]]
Judged = dict[str, Any]
NONE = "none"  # a judge's word for: no option is meant


def extract(rows: Sequence[Mapping[str, Any]], kind: Kind, ask: Ask | None) -> list[Judged]:
    """The rows with what is scored of each.

    Args:
        rows: of a benchmark, with the `output` of the model.
        kind: of the benchmark.
        ask: the judge; None if there is none.

    Returns:
        the rows with `prediction` (choice, yes-no), `extraction` (mathvista) or `grade` (mmvet), and `by`: rule, judge,
        or None where nothing was found. The rows of `vqa` are scored as they are.
    """
    match kind:
        case "vqa":
            return [{**row, "by": "rule"} for row in rows]
        case "mmvet":
            return _grades(rows, ask)
        case "mathvista":
            name, rule, prompt = "extraction", _plain_extraction, extraction_prompt
        case "yes-no":
            name, rule, prompt = "prediction", _plain_yes_no, yes_no_prompt
        case _:
            name, rule, prompt = "prediction", _plain_option, option_prompt
    found: list[Judged] = []
    for row in rows:
        value = rule(row)
        found.append({**row, name: value, "by": None if value is None else "rule"})
    open_rows = [row for row in found if row["by"] is None and row["output"].strip()]
    if ask and open_rows:
        for row, reply in zip(open_rows, ask([prompt(row) for row in open_rows], _parser(kind)), strict=True):
            if reply not in (None, NONE) and (kind not in ("choice", "circular") or reply in options(row)):
                row |= {name: reply, "by": "judge"}
    return found


def option_prompt(row: Mapping[str, Any]) -> str:
    """Ask which option an answer means."""
    listed = "\n".join(f"{letter}. {text}" for letter, text in options(row).items())
    return (
        "Below are a multiple-choice question, its options and the answer somebody gave in free words. Say which "
        "option that answer means. Do not solve the question yourself. Reply with the letter of the option and nothing "
        f"else. If the answer means none of them, or more than one, reply with the word {NONE}.\n\n"
        f"Question:\n{row['question']}\n\nOptions:\n{listed}\n\nAnswer given:\n{row['output']}\n\nLetter:"
    )


def yes_no_prompt(row: Mapping[str, Any]) -> str:
    """Ask whether an answer means yes or no."""
    return (
        "Below are a yes-or-no question and the answer somebody gave in free words. Does the answer mean yes or no? Do "
        f"not solve the question yourself. Reply with one word: yes, no, or {NONE} if it means neither.\n\n"
        f"Question:\n{row['question']}\n\nAnswer given:\n{row['output']}\n\nWord:"
    )


def extraction_prompt(row: Mapping[str, Any]) -> str:
    """Ask for the final answer of a worked solution, in the form that the question asks for."""
    form = {
        "multi_choice": "the letter of the option, for example B",
        "integer": "a whole number in digits, for example 14",
        "float": "a decimal number in digits, for example 0.6",
        "list": "a list in square brackets, for example [2007, 2008]",
    }
    kind = "multi_choice" if row["question_type"] == "multi_choice" else row["answer_type"]
    return (
        "Below are a question and the response somebody wrote. Copy the final answer out of the response. Do not solve "
        f"the question yourself and correct nothing. Reply with the answer alone, without a unit, as "
        f"{form.get(kind, 'a short text')}. If the response gives no final answer, reply with the word {NONE}.\n\n"
        f"Question:\n{mathvista.question_text(row)}\n\nResponse:\n{row['output']}\n\nFinal answer:"
    )


def grade_prompt(row: Mapping[str, Any]) -> str:
    """Ask for a grade from 0.0 to 1.0."""
    truth = row["answer"].replace("<AND>", " <AND> ").replace("<OR>", " <OR> ")
    return (
        "Grade how far a prediction agrees with the ground truth of a question about an image, which you cannot see. "
        "<AND> in the ground truth: all of the parts that it joins are needed, and each is worth its share. <OR>: any "
        "one of the parts that it joins is enough. The grade is one of 0.0 (wrong), 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, "
        "0.8, 0.9, 1.0 (right). Reply with the grade and nothing else.\n\n"
        "Question: How many apples and pears are there?\nGround truth: 3 apples <AND> 2 pears\n"
        "Prediction: I see three apples.\nGrade: 0.5\n\n"
        "Question: What is the animal?\nGround truth: dog <OR> puppy\nPrediction: It is a small dog.\nGrade: 1.0\n\n"
        "Question: What is the animal?\nGround truth: dog <OR> puppy\nPrediction: It is a cat.\nGrade: 0.0\n\n"
        f"Question: {row['question']}\nGround truth: {truth}\nPrediction: {row['output']}\nGrade:"
    )


def _parser(kind: Kind) -> Callable[[str], str | None]:
    return {"mathvista": _parse_extraction, "yes-no": _parse_yes_no}.get(kind, _parse_letter)


def _parse_letter(reply: str) -> str | None:
    found = re.fullmatch(rf"\W*(?:letter\W*)?([A-Z]|{NONE})\W*", reply.strip(), re.IGNORECASE)
    if not found:
        return None
    return NONE if found[1].lower() == NONE else found[1].upper()


def _parse_yes_no(reply: str) -> str | None:
    return NONE if reply.strip(" .\n").lower() == NONE else match_yes_no(reply)


def _parse_extraction(reply: str) -> str | None:
    lines = [line.strip() for line in reply.strip().splitlines() if line.strip()]
    text = re.sub(r"^(?:final|extracted)? ?answer\s*:\s*", "", lines[0], flags=re.IGNORECASE) if lines else ""
    return NONE if text.strip(" .").lower() == NONE else text or None


def _plain_option(row: Mapping[str, Any]) -> str | None:
    return match_option(row["output"], options(row))


def _plain_yes_no(row: Mapping[str, Any]) -> str | None:
    return match_yes_no(row["output"])


def _plain_extraction(row: Mapping[str, Any]) -> str | None:
    return mathvista.extract_plainly(row["output"], row)


def _grades(rows: Sequence[Mapping[str, Any]], ask: Ask | None) -> list[Judged]:
    """Every answer is graded by the judge; without one, what is not literally there gets 0 and counts as lost."""
    if ask:
        replies = ask([grade_prompt(row) for row in rows], parse_grade)
        return [
            {**row, "grade": reply or 0.0, "by": None if reply is None else "judge"}
            for row, reply in zip(rows, replies, strict=True)
        ]
    plain = [{**row, "grade": grade_plainly(row["output"], row["answer"])} for row in rows]
    return [{**row, "by": "rule" if row["grade"] == 1 else None} for row in plain]
