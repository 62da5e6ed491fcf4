"""Generated answers: beam search and greedy search that stop as soon as nothing can change the answer.

The beam search is that of transformers with its defaults (length penalty 1, no early stopping), which the authors use:
the same hypotheses with the same scores, on `branches.Branches`. It ends for a question

- where that of transformers ends: four hypotheses are complete and no beam scores better than the worst of them;
- or earlier, once every hypothesis that can still win holds the same answer word. A complete hypothesis of n tokens
  with log-probability s scores s / n. Log-probabilities only fall, and nothing grows longer than `max_new_tokens`, so
  that a beam with log-probability s never scores more than s / max_new_tokens.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from .branches import Branches, Prefix
from .score import extract_answer, settled_answer

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Hypothesis(NamedTuple):
    """A continuation of a prompt."""

    tokens: list[int]
    score: float  # log-probability; of a complete one divided by its tokens
    answer: str  # settled answer word, else empty


class _Search:
    """The beams of one question."""

    def __init__(self, beams: int, max_new_tokens: int) -> None:
        self.beams, self.max_new_tokens = beams, max_new_tokens
        self.running = [Hypothesis([], 0.0, "")]
        self.complete: list[Hypothesis] = []
        self.parents: list[int] = []
        self.done = False

    def advance(self, scores: list[float], parents: list[int], tokens: list[int], stops: Sequence[int]) -> None:
        """Take the best candidates, best first, and choose the next beams."""
        length = len(self.running[0].tokens) + 1
        old, self.running, self.parents = self.running, [], []
        for place, (score, parent, token) in enumerate(zip(scores, parents, tokens, strict=True)):
            grown = Hypothesis([*old[parent].tokens, token], score, old[parent].answer)
            if token not in stops and length < self.max_new_tokens:
                if len(self.running) < self.beams:
                    self.running.append(grown)
                    self.parents.append(parent)
            elif place < self.beams:
                self.complete.append(grown._replace(score=score / length))
        self.complete = sorted(self.complete, key=lambda each: -each.score)[: self.beams]
        full = len(self.complete) == self.beams
        self.done = not self.running or (full and self.running[0].score / length <= self.complete[-1].score)

    def settled(self) -> bool:
        """Whether every hypothesis that can still win holds one and the same answer."""
        best = self.complete[0].score if self.complete else -float("inf")
        rivals = [beam for beam in self.running if beam.score / self.max_new_tokens >= best]
        answers = {rival.answer for rival in [*self.complete[:1], *rivals]}
        return len(answers) == 1 and (answers != {""} or not rivals)

    def best(self) -> list[int]:
        """Tokens of the winner."""
        return (self.complete or self.running)[0].tokens


@torch.inference_mode()
def search(
    model: "PreTrainedModel",
    tokenizer: "PreTrainedTokenizerBase",
    prompts: Sequence[Sequence[int]],
    words: Sequence[str],
    stops: Sequence[int],
    *,
    beams: int,
    max_new_tokens: int,
    prefix: Prefix | None = None,
) -> list[str]:
    """The answer to each prompt, cut where nothing more can change what `extract_answer` finds in it.

    Args:
        model: one that passes `branches.require_branches`.
        tokenizer: of the model.
        prompts: token ids of each, not padded.
        words: answer words.
        stops: tokens that end an answer.
        beams: 1 is greedy search.
        max_new_tokens: at most generated.
        prefix: of all prompts, if it has been read.
    """
    searches = [_Search(beams, max_new_tokens) for _ in prompts]
    active = list(range(len(prompts)))
    branches = Branches(model, prompts, prefix)
    logits = branches.logits[:, None]
    visible = branches.seen[:, None]
    for depth in range(max_new_tokens):
        _advance([searches[place] for place in active], logits, stops)
        _settle([searches[place] for place in active], tokenizer, words)
        rows = [row for row, place in enumerate(active) if not searches[place].done]
        if not rows:
            break
        kept = torch.tensor(rows, device=model.device)
        if len(rows) <= len(active) // 2:  # moving the cache costs about as much as a step
            branches.keep(kept)
            visible = visible[kept]
            active = [active[row] for row in rows]
        tokens, parents = _next_tokens([searches[place] for place in active], beams)
        parents = parents.to(model.device)
        own = torch.eye(beams, dtype=torch.bool, device=model.device).expand(len(active), beams, beams)
        history = visible.gather(1, parents[..., None].expand(-1, -1, visible.shape[2]))
        visible = torch.cat([history, own], dim=2)
        logits = branches.extend(tokens.to(model.device), visible, torch.full((beams,), depth, device=model.device))
    return tokenizer.batch_decode([each.best() for each in searches], skip_special_tokens=True)


def _advance(searches: list[_Search], logits: Tensor, stops: Sequence[int]) -> None:
    """One step of every search that is not done. logits: (searches, branches, vocabulary)."""
    scores = logits.log_softmax(-1)
    sums = torch.full(scores.shape[:2], -1e9)
    for row, each in enumerate(searches):
        sums[row, : len(each.running)] = torch.tensor([beam.score for beam in each.running])
    totals = (scores + sums.to(scores.device)[..., None]).flatten(1)
    beams = searches[0].beams
    # So many that enough are left where every beam's best candidates end its text.
    best, places = totals.topk(1 if beams == 1 else (1 + len(stops)) * beams)
    vocabulary = logits.shape[2]
    columns = (best.tolist(), (places // vocabulary).tolist(), (places % vocabulary).tolist())
    for each, values, parents, tokens in zip(searches, *columns, strict=True):
        if not each.done:
            each.advance(values, parents, tokens, stops)


def _settle(searches: list[_Search], tokenizer: "PreTrainedTokenizerBase", words: Sequence[str]) -> None:
    """Read the answers of hypotheses that have none yet, and end the searches that are settled."""
    searches = [each for each in searches if not each.done]
    for read, lists in (
        (settled_answer, [each.running for each in searches]),
        (extract_answer, [each.complete for each in searches]),
    ):
        asked = [(beams, place) for beams in lists for place, beam in enumerate(beams) if not beam.answer]
        tokens = [beams[place].tokens for beams, place in asked]
        texts = tokenizer.batch_decode(tokens, skip_special_tokens=True) if tokens else []
        for (beams, place), text in zip(asked, texts, strict=True):
            # The bytes of a character that is cut in two are decoded to a mark that will not stay.
            answer = read(text.rstrip("\N{REPLACEMENT CHARACTER}"), words)
            beams[place] = beams[place]._replace(answer=answer)
    for each in searches:
        each.done = each.settled()


def _next_tokens(searches: list[_Search], beams: int) -> tuple[Tensor, Tensor]:
    """Last tokens of the beams, and the branches of the last step that they go on; (searches, beams) each."""
    tokens = torch.zeros(len(searches), beams, dtype=torch.long)
    parents = torch.zeros(len(searches), beams, dtype=torch.long)
    for row, each in enumerate(searches):
        if not each.done:
            tokens[row] = torch.tensor([beam.tokens[-1] for beam in each.running])
            parents[row] = torch.tensor(each.parents)
    return tokens, parents
