"""Prompts that a model has read once, and several continuations of each, side by side in one row of its cache.

What all prompts of a benchmark begin with is read once for all of them (`Prefix`).

A usual beam search keeps a copy of the prompt's keys and values for every beam, and moves them whenever beams change
places. Here the tokens of all branches are appended to the one row of their prompt, and a mask shows each token its
prompt and the earlier tokens of its own branch only. Nothing is copied or moved, and the model's results are the same.
"""

import copy
import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from ...errors import UnsupportedError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

ATTENTIONS = ("sdpa", "eager")  # those that take a mask of one's own
ADVICE = "Use --no-early-stop with the decodings authors and greedy, which asks transformers to generate."


class Prefix(NamedTuple):
    """Tokens that several prompts begin with, in the cache of a model."""

    length: int
    cache: Any  # of one row


def common_prefix(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with."""
    first, last = min(rows), max(rows)
    same = (place for place, (a, b) in enumerate(zip(first, last, strict=False)) if a != b)
    return next(same, min(len(first), len(last)))


@torch.inference_mode()
def read_prefix(model: "PreTrainedModel", prompts: Sequence[list[int]]) -> Prefix | None:
    """What all prompts begin with, short of the last token of each; None if that is nothing."""
    length = min(common_prefix(prompts), min(map(len, prompts)) - 1)
    if length < 1:
        return None
    ids = torch.tensor([prompts[0][:length]], device=model.device)
    return Prefix(length, model(input_ids=ids, use_cache=True, **_last_logits_only(model)).past_key_values)


class Branches:
    """Prompts in the key-value cache of a model.

    Args:
        model: a causal language model.
        prompts: token ids of each.
        prefix: of all prompts, if it has been read.

    Attributes:
        logits: (prompts, vocabulary), of the token after each prompt, float32.
        seen: (prompts, entries), which entries of the cache hold the prompt; the rest is padding.
        lengths: (prompts,), tokens of each prompt.
    """

    def __init__(
        self, model: "PreTrainedModel", prompts: Sequence[Sequence[int]], prefix: Prefix | None = None
    ) -> None:
        known = prefix.length if prefix else 0
        longest = max(map(len, prompts))
        ids = torch.zeros(len(prompts), longest - known, dtype=torch.long)
        seen = torch.ones(len(prompts), longest, dtype=torch.bool)
        for row, prompt in enumerate(prompts):
            ids[row, longest - len(prompt) :] = torch.tensor(prompt[known:])
            seen[row, known : known + longest - len(prompt)] = False
        self.model = model
        self.seen = seen.to(model.device)
        self.lengths = self.seen.sum(1)
        positions = (self.seen.cumsum(1) - 1).clamp(min=0)[:, known:]
        cache = copy.deepcopy(prefix.cache) if prefix else None
        if cache is not None:
            cache.batch_repeat_interleave(len(prompts))
        output = model(
            input_ids=ids.to(model.device),
            attention_mask=self.seen.long(),
            position_ids=positions,
            past_key_values=cache,
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

        Raises:
            UnsupportedError: prompt and branches do not fit the window of a sliding attention.
        """
        windows = [layer.sliding_window for layer in self.cache.layers if getattr(layer, "is_sliding", False)]
        if visible.shape[2] > min(windows, default=visible.shape[2]):
            raise UnsupportedError(
                f"The attention of this model sees {min(windows)} tokens back, and a prompt with its branches takes "
                f"{visible.shape[2]}. {ADVICE}"
            )
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
    attention = getattr(model.config, "_attn_implementation", None)
    if attention not in ATTENTIONS:
        raise UnsupportedError(f"The attention of this model is {attention!r}: expected sdpa or eager. {ADVICE}")
    longer, prompt = [2, 3, 4, 5, 6, 7, 8], [2, 3, 6, 7, 8]  # the second is padded
    first, second = [9, 10], [11, 10]
    try:
        texts = torch.tensor([prompt + first, prompt + second], device=model.device)
        plain = model(input_ids=texts).logits[:, -1].float()
        branches = Branches(model, [longer, prompt], read_prefix(model, [longer, prompt]))
        visible = branches.seen[:, None].expand(2, 2, -1)
        own = torch.eye(2, dtype=torch.bool, device=model.device).expand(2, 2, 2)
        for depth, pair in enumerate(zip(first, second, strict=True)):
            visible = torch.cat([visible, own], dim=2)
            tokens, depths = torch.tensor([pair, pair]), torch.tensor([depth, depth])
            logits = branches.extend(tokens.to(model.device), visible, depths.to(model.device))
        branched = logits[1]
    except (TypeError, ValueError, AttributeError, RuntimeError, IndexError) as error:
        raise UnsupportedError(f"This model cannot follow branches of a text: {error}. {ADVICE}") from error
    off, apart = (branched - plain).abs().mean(), (plain[0] - plain[1]).abs().mean()
    if off > (1e-3 if model.dtype in (torch.float32, torch.float64) else 0.1) * apart:
        raise UnsupportedError(
            f"This model mixes up branches of a text: its logits are off by {off:.1e} on average, where two texts are "
            f"{apart:.1e} apart. {ADVICE}"
        )


def _last_logits_only(model: Any) -> dict[str, int]:
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(base.forward).parameters else {}
