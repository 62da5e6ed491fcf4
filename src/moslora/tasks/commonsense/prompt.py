"""The authors' prompts, to the last blank: they are part of the protocol.

The training and the evaluation script of the authors differ in whitespace only: the end of the first line, and the
blank lines, which are indented by 16 spaces in training and empty in evaluation. Both indent every heading by 16
spaces. Kept as they are, since a model answers to what it was trained and measured with.

Source: generate_prompt in commonsense_reasoning/finetune.py and commonsense_evaluate.py of
github.com/wutaiqiang/MoSLoRA.
"""

_INDENT = 16 * " "
_TASK = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
_TASK_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)


def training_prompt(instruction: str, context: str = "") -> str:
    """What training shows before the answer, which follows without a blank between."""
    first = f"{_TASK_WITH_INPUT} " if context else f"{_TASK}  "
    return _prompt(first, instruction, context, blank=_INDENT)


def evaluation_prompt(instruction: str, context: str = "") -> str:
    """What evaluation lets the model continue."""
    first = _TASK_WITH_INPUT if context else f"{_TASK} "
    return _prompt(first, instruction, context, blank="")


def _prompt(first: str, instruction: str, context: str, blank: str) -> str:
    lines = [first, "", f"{_INDENT}### Instruction:", f"{_INDENT}{instruction}"]
    if context:
        lines += [blank, f"{_INDENT}### Input:", f"{_INDENT}{context}"]
    lines += [blank, f"{_INDENT}### Response:", _INDENT]
    return "\n".join(lines)
