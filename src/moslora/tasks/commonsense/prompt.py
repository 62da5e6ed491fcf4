"""Prompts: the authors', to the last blank, or the chat template of an Instruct model's tokenizer.

The authors' prompts are part of the protocol. Their training and their evaluation script differ in whitespace only: the
end of the first line, and the blank lines, which are indented by 16 spaces in training and empty in evaluation. Both
indent every heading by 16 spaces. Kept as they are, since a model answers to what it was trained and measured with.

Source: generate_prompt in commonsense_reasoning/finetune.py and commonsense_evaluate.py of
github.com/wutaiqiang/MoSLoRA.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ...errors import ConfigError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

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


def evaluation_ids(
    items: Sequence[Mapping[str, str]], tokenizer: "PreTrainedTokenizerBase", prompt: str
) -> list[list[int]]:
    """Token ids of what evaluation lets the model continue, one list an item.

    Args:
        items: with `instruction` and `input`.
        tokenizer: of the base model.
        prompt: `authors` or `chat`, as the model was trained.

    Raises:
        ConfigError: `chat`, and the tokenizer has no chat template.
    """
    if prompt == "chat":
        return chat_ids(items, tokenizer)
    return tokenizer([evaluation_prompt(item["instruction"], item["input"]) for item in items])["input_ids"]


def chat_ids(
    items: Sequence[Mapping[str, str]], tokenizer: "PreTrainedTokenizerBase", *, answered: bool = False
) -> list[list[int]]:
    """Token ids of conversations in the tokenizer's own template, one list an item.

    Args:
        items: with `instruction`, `input` and, if answered, `output`.
        tokenizer: of an Instruct model.
        answered: with the answer and the end of its turn, instead of ending where the answer begins.

    Raises:
        ConfigError: the tokenizer has no chat template, or one that refuses a question and an answer.
    """
    if tokenizer.chat_template is None:
        raise ConfigError(
            "The tokenizer has no chat template: choose an Instruct model, or --prompt authors for a base model."
        )
    conversations = []
    for item in items:
        question = f"{item['instruction']}\n\n{item['input']}" if item["input"] else item["instruction"]
        turns = [{"role": "user", "content": question}]
        conversations.append([*turns, {"role": "assistant", "content": item["output"]}] if answered else turns)
    # Some templates (Llama 3.2) write today's date, and a run would then depend on the day: this is their own default.
    settings = {"add_generation_prompt": not answered, "date_string": "26 Jul 2024"}
    try:
        return tokenizer.apply_chat_template(conversations, tokenize=True, return_dict=False, **settings)
    except Exception as error:  # templates are small programs and raise errors of their own
        raise ConfigError(f"The tokenizer's chat template cannot be used: {error}") from error


def stop_ids(tokenizer: "PreTrainedTokenizerBase", prompt: str) -> list[int]:
    """Tokens that end an answer: the end of text and, for `chat`, the end of a turn.

    Raises:
        ConfigError: `chat`, and the tokenizer has no chat template.
    """
    stops = [tokenizer.eos_token_id]
    if prompt == "chat":
        probe = [{"instruction": "question", "input": "", "output": "answer"}]
        asked, answered = chat_ids(probe, tokenizer)[0], chat_ids(probe, tokenizer, answered=True)[0]
        special = (token for token in answered[len(asked) :] if _is_special(tokenizer, token))
        stops += [token for token in special if token not in stops][:1]
    return stops


def _is_special(tokenizer: "PreTrainedTokenizerBase", token: int) -> bool:
    return token in tokenizer.added_tokens_decoder and tokenizer.added_tokens_decoder[token].special


def _prompt(first: str, instruction: str, context: str, blank: str) -> str:
    lines = [first, "", f"{_INDENT}### Instruction:", f"{_INDENT}{instruction}"]
    if context:
        lines += [blank, f"{_INDENT}### Input:", f"{_INDENT}{context}"]
    lines += [blank, f"{_INDENT}### Response:", _INDENT]
    return "\n".join(lines)
