"""Prompts that a model has read once, and several continuations of each, side by side in one row of its cache.

A usual beam search keeps a copy of the prompt's keys and values for every beam, and moves them whenever beams change
places. Here the tokens of all branches are appended to the one row of their prompt, and a mask shows each token its
prompt and the earlier tokens of its own branch only. Nothing is copied or moved, and the model's results are the same.
"""

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...errors import UnsupportedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTIONS = ("sdpa", "eager")  # those that take a mask of one's own


class Branches:
    """Prompts in the key-value cache of a model.

    Attributes:
        logits: (prompts, vocabulary), of the token after each prompt, float32.
        seen: (prompts, entries), which entries of the cache hold the prompt; the rest is padding.
        lengths: (prompts,), tokens of each prompt.
    """

    def __init__(self, model: "PreTrainedModel", prompts: Sequence[Sequence[int]]) -> None:
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest, dtype=torch.long)
        seen = torch.zeros(len(prompts), longest, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt)
            seen[row, longest - len(prompt) :] = True
        self.model = model
        self.seen = seen.to(model.device)
        self.lengths = self.seen.sum(1)
        positions = (self.seen.cumsum(1) - 1).clamp(min=0)
        output = model(
            input_ids=ids.to(model.device),
            attention_mask=self.seen.long(),
            position_ids=positions,
            use_cache=True,
            **_last_logits_only(model),
        )
        self.cache = output.past_key_values
        self.logits = output.logits[:, -1].float()

    def extend(self, tokens: Tensor, visible: Tensor, depth: Tensor) -> Tensor:
        """Append tokens to every row.

        Args:
            tokens: (prompts, n).
            visible: (prompts, n, entries + n), bool, the entries of the cache that each new token may look at; the
                last n are the new tokens themselves.
            depth: (n,) or (prompts, n), tokens of its branch before each new token.

        Returns:
            (prompts, n, vocabulary), float32 logits of the token after each.
        """
        dtype = self.model.dtype
        mask = torch.zeros(visible.shape, dtype=dtype, device=visible.device)
        mask = mask.masked_fill(~visible, torch.finfo(dtype).min)[:, None]
        output = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=self.lengths[:, None] + depth,
            past_key_values=self.cache,
            use_cache=True,
        )
        return output.logits.float()

    def keep(self, rows: Tensor) -> None:
        """Forget all prompts but these, by their places."""
        self.cache.batch_select_indices(rows)
        self.lengths = self.lengths[rows]


@torch.inference_mode()
def require_branches(model: "PreTrainedModel") -> None:
    """Make sure that the model's results on two branches are those of two texts; takes two short forward passes.

    Raises:
        UnsupportedError: they are not, as with models that keep no keys and values of single tokens, or whose
            attention takes no mask of one's own.
    """
    advice = "Use --no-early-stop with the decodings authors and greedy, which asks transformers to generate."
    attention = getattr(model.config, "_attn_implementation", None)
    if attention not in ATTENTIONS:
        raise UnsupportedError(f"The attention of this model is {attention!r}: expected sdpa or eager. {advice}")
    longer, prompt = [2, 3, 4, 5, 6, 7, 8], [4, 5, 6, 7, 8]  # the second is padded
    first, second = [9, 10], [11, 10]
    try:
        texts = torch.tensor([prompt + first, prompt + second], device=model.device)
        plain = model(input_ids=texts).logits[:, -1].float()
        branches = Branches(model, [longer, prompt])
        visible = branches.seen[:, None].expand(2, 2, -1)
        own = torch.eye(2, dtype=torch.bool, device=model.device).expand(2, 2, 2)
        for depth, pair in enumerate(zip(first, second, strict=True)):
            visible = torch.cat([visible, own], dim=2)
            tokens, depths = torch.tensor([pair, pair]), torch.tensor([depth, depth])
            logits = branches.extend(tokens.to(model.device), visible, depths.to(model.device))
        branched = logits[1]
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise UnsupportedError(f"This model cannot follow branches of a text: {error}. {advice}") from error
    off, apart = (branched - plain).abs().mean(), (plain[0] - plain[1]).abs().mean()
    if off > (1e-3 if model.dtype in (torch.float32, torch.float64) else 0.1) * apart:
        raise UnsupportedError(
            f"This model mixes up branches of a text: its logits are off by {off:.1e} on average, where two texts are "
            f"{apart:.1e} apart. {advice}"
        )


def _last_logits_only(model: Any) -> dict[str, int]:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(base.forward).parameters else {}
