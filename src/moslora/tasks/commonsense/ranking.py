"""Likelihood ranking: which option of a question does the model hold for the most likely answer? Nothing is parsed.

The text of an option is the prompt, the lead-in `the correct answer is ` and the option's word. It is cut into tokens
as a whole, as in training. The options share all tokens up to some place; an option's score is the sum of the
log-probabilities of its own tokens after that place. (The shared tokens would add the same number to each.) Where the
tokens of one option begin those of another, the end-of-text token counts as part of each option; without it, the
longer one could never win.

The shared tokens are read once for all options, and so are the options' own (`branches.Branches`).
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .branches import Branches, Prefix, common_prefix
from .prompt import chat_ids, evaluation_prompt

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LEAD_IN = "the correct answer is "  # how all answers of LLM-Adapters begin


class Choice(NamedTuple):
    """A question as tokens."""

    shared: list[int]
    own: list[list[int]]  # of each option; at least one token


def tokenize_choice(
    item: Mapping[str, str], options: Sequence[str], tokenizer: "PreTrainedTokenizerBase", prompt: str
) -> Choice:
    """Tokens that all options of a question share, and those of each alone.

    Args:
        item: with `instruction` and `input`.
        options: at least one word.
        tokenizer: of the base model.
        prompt: `authors` or `chat`; a chat's prompt ends with a special token, so that the answer is cut for itself.

    Raises:
        ConfigError: `chat`, and the tokenizer has no chat template.
    """
    answers = [LEAD_IN + option for option in options]
    if prompt == "chat":
        begin = chat_ids([item], tokenizer)[0]
        texts = [begin + ids for ids in tokenizer(answers, add_special_tokens=False)["input_ids"]]
    else:
        question = evaluation_prompt(item["instruction"], item["input"])
        texts = tokenizer([question + answer for answer in answers])["input_ids"]
    shared = common_prefix(texts)
    own = [text[shared:] for text in texts]
    if any(not a or (a is not b and a == b[: len(a)]) for a in own for b in own):
        own = [[*tokens, tokenizer.eos_token_id] for tokens in own]
    return Choice(texts[0][:shared], own)


@torch.inference_mode()
def rank(model: "PreTrainedModel", choices: Sequence[Choice], prefix: Prefix | None = None) -> list[list[float]]:
    """Scores of the options of each question, log-probabilities in nats.

    Args:
        model: one that passes `branches.require_branches`.
        choices: questions, at best of about one length.
        prefix: of the shared tokens of all, if it has been read.
    """
    branches = Branches(model, [choice.shared for choice in choices], prefix)
    chains = [[tokens[:-1] for tokens in choice.own] for choice in choices]
    width = max(sum(map(len, chain)) for chain in chains)
    after_shared = branches.logits.log_softmax(-1)
    if width:
        layout = [_layout(chain, width) for chain in chains]
        tokens, depth, own = (torch.stack(part).to(model.device) for part in zip(*layout, strict=True))
        visible = torch.cat([branches.seen[:, None].expand(-1, width, -1), own], dim=2)
        after_own = branches.extend(tokens, visible, depth).log_softmax(-1)
    scores = []
    for row, choice in enumerate(choices):
        place, sums = 0, []
        for tokens_of_option in choice.own:
            head, *tail = tokens_of_option
            terms = [after_shared[row, head]]
            if tail:
                terms.append(after_own[row, range(place, place + len(tail)), tail].sum())
            place += len(tail)
            sums.append(torch.stack(terms).sum())
        scores.append(torch.stack(sums).tolist())
    return scores


def _layout(chains: list[list[int]], width: int) -> tuple[Tensor, Tensor, Tensor]:
    """Chains of tokens side by side: tokens (width,), depth (width,), and which of them each may see (width, width)."""
    placed = [(token, depth, number) for number, chain in enumerate(chains) for depth, token in enumerate(chain)]
    placed += [(0, 0, -1)] * (width - len(placed))
    tokens, depth, owner = torch.tensor(placed).T
    same = owner[:, None] == owner[None]
    return tokens, depth, same & torch.ones(width, width, dtype=torch.bool).tril()
