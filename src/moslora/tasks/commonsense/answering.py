"""Answers of a loaded model to questions, in batches: the in-process half of `evaluate`, without files."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import torch

from ...errors import RunError
from .branches import Prefix, read_prefix, require_branches
from .data import Item
from .decoding import search
from .prompt import evaluation_ids, stop_ids
from .ranking import Choice, rank, tokenize_choice
from .score import extract_answer, question_options

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

Decoding = Literal["authors", "greedy", "ranking"]
BEAMS = {"authors": 4, "greedy": 1}


class Question(NamedTuple):
    """One item, ready for the model."""

    number: int
    tokens: Choice  # without own tokens of options where text is generated
    options: tuple[str, ...]
    label: str


class Answerer:
    """A loaded model that answers questions, as often as it is asked."""

    def __init__(
        self,
        model: "PreTrainedModel",
        tokenizer: "PreTrainedTokenizerBase",
        *,
        decoding: Decoding = "authors",
        prompt: str = "authors",
        max_new_tokens: int = 32,
        batch_size: int = 16,
        early_stop: bool = True,
    ) -> None:
        """Keep the settings, and make sure that the model can be used so.

        Args:
            model: in evaluation mode, on its device.
            tokenizer: of the model, with a padding token.
            decoding: see `CommonsenseEvalConfig`.
            prompt: `authors` or `chat`, as the model was trained.
            max_new_tokens: generated at most.
            batch_size: questions per batch.
            early_stop: see `CommonsenseEvalConfig`.

        Raises:
            UnsupportedError: the model's attention cannot follow several branches of a text.
            ConfigError: `chat`, and the tokenizer has no chat template.
        """
        self.model, self.tokenizer = model, tokenizer
        self.decoding, self.prompt, self.early_stop = decoding, prompt, early_stop
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size
        self.stops = stop_ids(tokenizer, prompt)
        if early_stop or decoding == "ranking":
            require_branches(model)

    def answer(
        self, items: Sequence[Item], words: Sequence[str], indices: Sequence[int] | None = None
    ) -> Iterator[list[dict[str, Any]]]:
        """Answer questions in batches of about one length, the longest first: memory runs out at once or never.

        Args:
            items: of a benchmark, with `instruction`, `input` and `answer`.
            words: its answer words.
            indices: which items; all unless given.

        Yields:
            a row for each question of a batch: `index`, `prediction`, `label`, and `output` (the generated text) or
            `scores` (option -> log-probability).

        Raises:
            RunError: out of memory.
        """
        indices = range(len(items)) if indices is None else indices
        if not indices:
            return
        questions = self._questions(items, words, indices)
        questions.sort(key=lambda question: (-len(question.tokens.shared), question.number))
        own = self.early_stop or self.decoding == "ranking"
        prefix = read_prefix(self.model, [question.tokens.shared for question in questions]) if own else None
        for start in range(0, len(questions), self.batch_size):
            batch = questions[start : start + self.batch_size]
            try:
                found = (
                    self._rank(batch, prefix) if self.decoding == "ranking" else self._generate(batch, words, prefix)
                )
            except torch.OutOfMemoryError as error:
                raise RunError(
                    f"Out of memory with {len(batch)} questions of {len(batch[0].tokens.shared)} tokens. What is "
                    f"answered is kept: repeat the command with --batch-size {max(1, len(batch) // 2)}."
                ) from error
            yield [
                {"index": question.number, **row, "label": question.label}
                for question, row in zip(batch, found, strict=True)
            ]

    def _questions(self, items: Sequence[Item], words: Sequence[str], indices: Sequence[int]) -> list[Question]:
        asked = [items[index] for index in indices]
        options = [question_options(item, words) for item in asked]
        if self.decoding == "ranking":
            pairs = zip(asked, options, strict=True)
            tokens = [tokenize_choice(item, each, self.tokenizer, self.prompt) for item, each in pairs]
        else:
            tokens = [Choice(ids, []) for ids in evaluation_ids(asked, self.tokenizer, self.prompt)]
        labels = [item["answer"] for item in asked]
        return [Question(*row) for row in zip(indices, tokens, options, labels, strict=True)]

    def _rank(self, batch: list[Question], prefix: Prefix | None) -> list[dict[str, Any]]:
        rows = []
        scores = rank(self.model, [question.tokens for question in batch], prefix)
        for question, values in zip(batch, scores, strict=True):
            best = question.options[values.index(max(values))]
            rows.append({"scores": dict(zip(question.options, values, strict=True)), "prediction": best})
        return rows

    def _generate(self, batch: list[Question], words: Sequence[str], prefix: Prefix | None) -> list[dict[str, Any]]:
        prompts = [question.tokens.shared for question in batch]
        if self.early_stop:
            outputs = search(
                self.model,
                self.tokenizer,
                prompts,
                words,
                self.stops,
                beams=BEAMS[self.decoding],
                max_new_tokens=self.max_new_tokens,
                prefix=prefix,
            )
        else:
            outputs = self._generate_to_the_end(prompts)
        return [{"output": output, "prediction": extract_answer(output, words)} for output in outputs]

    @torch.inference_mode()
    def _generate_to_the_end(self, prompts: list[list[int]]) -> list[str]:
        """What transformers' own generation writes after each prompt, without special tokens."""
        inputs = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        tokens = self.model.generate(
            **inputs.to(self.model.device),
            num_beams=BEAMS[self.decoding],
            max_new_tokens=self.max_new_tokens,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            pad_token_id=self.tokenizer.pad_token_id,
            eos_token_id=self.stops,
        )
        return self.tokenizer.batch_decode(tokens[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
