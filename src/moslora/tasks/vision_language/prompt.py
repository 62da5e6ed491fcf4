"""Conversations in the chat template of the model, and which of their tokens are answers.

The template is asked once per number of turns, with placeholders for the texts: what it writes around them shows where
every text begins and ends. Each conversation is then rendered by the template itself and compared with that.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from ...errors import ConfigError, UnsupportedError

IGNORED = -100  # label of a token that the loss leaves out
USER, ASSISTANT, SYSTEM = "user", "assistant", "system"


class Turn(NamedTuple):
    """What one speaker says. An image is shown before the text."""

    role: str
    text: str
    has_image: bool = False


class Encoded(NamedTuple):
    """Token ids, and labels that are `IGNORED` outside answers."""

    ids: list[int]
    labels: list[int]


class ChatForm:
    """How one model writes conversations.

    Args:
        processor: of a LLaVA-shaped model. Its own template comes before that of its tokenizer.

    Raises:
        ConfigError: there is no chat template, or it does not show what it is given.
        UnsupportedError: images of different shapes take different numbers of tokens.
    """

    def __init__(self, processor: Any) -> None:
        self.tokenizer = processor.tokenizer
        self.image_token: str = processor.image_token
        self.image_token_id: int = processor.image_token_id
        self.image_tokens = _image_tokens(processor)
        self.template = getattr(processor, "chat_template", None) or self.tokenizer.chat_template
        if self.template is None:
            raise ConfigError(
                "The model's processor and tokenizer have no chat template: put a chat_template.jinja into its folder."
            )
        if not self.tokenizer.is_fast:
            raise ConfigError(
                f"{type(self.tokenizer).__name__} does not say where a token is in the text, so answers cannot be told "
                "from questions: use a fast tokenizer (tokenizer.json)."
            )
        self._in_parts = not _shows_text(self)
        self._around: dict[tuple[Any, ...], list[str]] = {}
        self.end, self._adds_end = self._find_end()

    def question(self, turns: Sequence[Turn]) -> str:
        """The text that ends where the next answer begins; an image is one image token.

        Raises:
            ConfigError: the template changes what is said.
        """
        return self._write(turns, asks=True)[0]

    def question_ids(self, turns: Sequence[Turn]) -> list[int]:
        """Token ids of `question`, with all tokens of the image."""
        text = self.question(turns)
        ids = self.tokenizer(text, add_special_tokens=self._adds_bos(text))["input_ids"]
        return self._with_images(ids, ids)

    def talk(self, turns: Sequence[Turn]) -> tuple[str, list[tuple[int, int]]]:
        """The text up to the end of the last answer, and where answers begin and end in it, ends of turn included.

        Args:
            turns: with at least one of the assistant.

        Raises:
            ConfigError: the template changes what is said.
        """
        text, spans = self._write(turns, asks=False)
        return text[: spans[-1][1]], spans

    def encode(self, talks: Sequence[Sequence[Turn]], max_tokens: int) -> list[Encoded]:
        """Tokens and labels of conversations, cut at the end; the loss is over answers and their ends of turn.

        Args:
            talks: each of a system (may be missing), user and assistant, in this order, with at least one answer.
            max_tokens: longest result. It is for the caller to see that an image fits.
        """
        written = [self.talk(turns) for turns in talks]
        texts = [text for text, _ in written]
        tokens = self.tokenizer(texts, add_special_tokens=self._adds_bos(texts[0]), return_offsets_mapping=True)
        rows = zip(tokens["input_ids"], tokens["offset_mapping"], (spans for _, spans in written), strict=True)
        encoded = []
        for ids, offsets, spans in rows:
            pairs = zip(ids, _overlapping(offsets, spans), strict=True)
            labels = self._with_images([token if counts else IGNORED for token, counts in pairs], ids, IGNORED)
            encoded.append(Encoded(self._with_images(ids, ids)[:max_tokens], labels[:max_tokens]))
        return encoded

    def stop_ids(self) -> list[int]:
        """Tokens that end an answer."""
        return sorted({self.tokenizer.convert_tokens_to_ids(self.end), self.tokenizer.eos_token_id})

    def _write(self, turns: Sequence[Turn], *, asks: bool) -> tuple[str, list[tuple[int, int]]]:
        """What the template writes, with an end after every answer, and where answers with their ends are in it."""
        turns = [turn._replace(text=turn.text.strip()) for turn in turns]
        pieces = self._pieces(turns, asks)
        filled = pieces[0] + "".join(turn.text + piece for turn, piece in zip(turns, pieces[1:], strict=True))
        if filled != self._render(turns, add_generation_prompt=asks):
            raise ConfigError(
                f"The chat template changes the texts of a conversation (found at {turns[0].text[:60]!r}), so answers "
                "cannot be found in what it writes: use another chat template."
            )
        text, spans = pieces[0], []
        for turn, piece in zip(turns, pieces[1:], strict=True):
            if turn.role == ASSISTANT:
                spans.append((len(text), len(text) + len(turn.text) + len(self.end)))
                piece = self.end + self._after_end(piece)
            text += turn.text + piece
        return text, spans

    def _render(self, turns: Sequence[Turn], **settings: Any) -> str:
        messages = [{"role": turn.role, "content": self._content(turn)} for turn in turns]
        # Some templates (Llama 3.2) write today's date, and a run would then depend on the day: their own default.
        settings |= {"tokenize": False, "date_string": "26 Jul 2024"}
        try:
            return self.tokenizer.apply_chat_template(messages, chat_template=self.template, **settings)
        except Exception as error:  # templates are small programs and raise errors of their own
            raise ConfigError(f"The chat template cannot be used: {error}") from error

    def _content(self, turn: Turn) -> Any:
        if self._in_parts:
            image = [{"type": "image"}] if turn.has_image else []
            return [*image, {"type": "text", "text": turn.text}]
        return f"{self.image_token}\n{turn.text}" if turn.has_image else turn.text

    def _pieces(self, turns: Sequence[Turn], asks: bool = False) -> list[str]:
        """What the template writes before, between and after the texts of such turns."""
        kind = (asks, *((turn.role, turn.has_image) for turn in turns))
        if kind not in self._around:
            marks = [f"@{place}@" for place in range(len(turns))]
            marked = [turn._replace(text=mark) for turn, mark in zip(turns, marks, strict=True)]
            text = self._render(marked, add_generation_prompt=asks)
            if [text.count(mark) for mark in marks] != [1] * len(marks):
                raise ConfigError(f"The chat template does not show every turn once. It writes {text[:200]!r}.")
            self._around[kind] = re.split("|".join(marks), text)
        return self._around[kind]

    def _find_end(self) -> tuple[str, bool]:
        """The token that ends an answer, and whether the template has to be helped to it."""
        tail = self._pieces([Turn(USER, "question"), Turn(ASSISTANT, "answer")])[-1].lstrip()
        special = sorted(_special_tokens(self.tokenizer), key=len, reverse=True)
        found = next((token for token in special if tail.startswith(token)), None)
        return (found, False) if found else (self.tokenizer.eos_token, True)

    def _after_end(self, piece: str) -> str:
        """What follows the end of an answer."""
        piece = piece.lstrip()
        if self._adds_end:
            return piece
        if not piece.startswith(self.end):
            raise ConfigError(
                f"The chat template ends the last answer with {self.end!r} but goes on with {piece[:60]!r} after an "
                "earlier one: use another chat template."
            )
        return piece.removeprefix(self.end)

    def _adds_bos(self, text: str) -> bool:
        """Whether the tokenizer has to add its special tokens: not when the template has written the first."""
        bos = self.tokenizer.bos_token
        return bos is None or not text.startswith(bos)

    def _with_images(self, row: list[int], ids: list[int], filler: int | None = None) -> list[int]:
        """A row beside token ids, with the place of the image once for each of its tokens."""
        if self.image_token_id not in ids:
            return row
        place = ids.index(self.image_token_id)
        middle = [self.image_token_id if filler is None else filler] * self.image_tokens
        return row[:place] + middle + row[place + 1 :]


def _shows_text(form: ChatForm) -> bool:
    """Whether the template takes a turn's content as text; others expect a list of parts."""
    form._in_parts = False
    try:
        return "@text@" in form._render([Turn(USER, "@text@")])
    except ConfigError:
        return False


def _image_tokens(processor: Any) -> int:
    """Tokens that stand for one image."""
    from PIL import Image

    counts = set()
    for size in ((64, 64), (96, 64)):
        shown = processor(text=processor.image_token, images=Image.new("RGB", size))
        counts.add(list(shown["input_ids"][0]).count(processor.image_token_id))
    if len(counts) > 1:
        raise UnsupportedError(
            f"This processor shows images with different numbers of tokens ({sorted(counts)}): only models that show "
            "every image alike, such as LLaVA 1.5, can be trained here."
        )
    return counts.pop()


def _special_tokens(tokenizer: Any) -> set[str]:
    added = {str(token) for token in tokenizer.added_tokens_decoder.values() if token.special}
    return added | set(tokenizer.all_special_tokens)


def _overlapping(offsets: list[tuple[int, int]], spans: list[tuple[int, int]]) -> list[bool]:
    """Which tokens have a letter in a span; both in the order of the text."""
    found, place = [], 0
    for start, end in offsets:
        while place < len(spans) and spans[place][1] <= start:
            place += 1
        found.append(place < len(spans) and end > spans[place][0] and end > start)
    return found
