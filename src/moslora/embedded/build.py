"""Make the small model that comes with the package: its tokenizer, then its weights, all from one seed.

    python -m moslora.embedded.build --out DIR

One core of an x86 CPU with units for bfloat16 needs about 20 minutes. The same seed gives the same tokenizer
everywhere, and the same weights wherever torch computes with the same kernels; elsewhere they differ by rounding.
"""

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, NamedTuple

from .contrasts import contrast
from .skills import lookup, skill
from .texts import Exercise, statement
from .world import first, of_tables, shares, shuffled

if TYPE_CHECKING:
    from torch import Tensor
    from torch.optim import Optimizer
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SEED = 0
VOCABULARY = 2560
TOKENIZER_DOCUMENTS = 60_000

STEPS = 2000
SHARES = 0.12, 0.26, 0.38, 0.24  # of look-ups, statements, contrasts and skills among the texts
FIRST_SHARES = 0.5, 0.3, 0.2, 0.0  # the same at the beginning
BATCH_SIZE = 64  # rows
BATCHES_SORTED = 16  # batches whose rows are sorted by length together
SHARE_ALONE = 0.7  # of the texts that are a row of their own
LONG_ROW = 112  # tokens, more than a question with its prompt
GROWTH = 60_000  # texts after which the whole world is told of: about 500 steps
FIRST_ROWS = 0.1  # share of the rows that it begins with
SKILLS_BEGIN, GROWTH_BEGINS = 0.2, 0.35  # after these shares of the growth
MATRIX_LEARNING_RATE = 0.02  # of Muon, for the matrices
LEARNING_RATE = 3e-3  # of AdamW, for the embedding and the norms
WARMUP_STEPS = 30
DECAY = 0.4  # share of the steps at the end over which the learning rate falls to 0
IGNORED = -100  # label of padding

_KINDS = ("lookup", "statement", "contrast", "skill")

# A question, a line break, its answer.
CHAT_TEMPLATE = (
    "{% for message in messages %}{{ message.content }}"
    "{{ eos_token if message.role == 'assistant' else '\\n' }}{% endfor %}"
)

# A line break and a run of blanks are words of their own, so that the indentation of a prompt costs one token.
_WORDS = r" ?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+|\n| +|\s"


class Row(NamedTuple):
    """Token ids, and the same as labels, or `IGNORED` where nothing is to be learned."""

    ids: list[int]
    labels: list[int]


class Batch(NamedTuple):
    """Rows as two tensors (BATCH_SIZE, longest row)."""

    ids: "Tensor"
    labels: "Tensor"


def build(out: Path, steps: int = STEPS, seed: int = SEED) -> None:
    """Write the model folder.

    Args:
        out: made if missing.
        steps: of pretraining, `BATCH_SIZE` sequences each.
        seed: of the texts and of the initial weights.
    """
    tokenizer = build_tokenizer(seed)
    model = pretrain(tokenizer, steps, seed)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def build_tokenizer(seed: int = SEED) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer of `VOCABULARY` tokens, trained on texts of the world."""
    from tokenizers import Regex, Tokenizer, decoders, models, trainers
    from tokenizers import pre_tokenizers as split
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split.Sequence(
        [split.Split(Regex(_WORDS), "isolated"), split.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>"],
        initial_alphabet=split.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = itertools.islice(documents(seed), TOKENIZER_DOCUMENTS)
    tokenizer.train_from_iterator((text.given + text.learned for text in texts), trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=512
    )
    made.chat_template = CHAT_TEMPLATE
    return made


def documents(seed: int, growth: int = 0) -> Iterator[Exercise]:
    """Short texts about the world, without end: it is told whole, and skills are taught with the rows for practice.

    Args:
        seed: decides every text.
        growth: texts after which all rows are in use. A small model learns where to look with few words far sooner, and
            learns the others quickly then. So the first texts tell of a tenth of the rows and teach to find words in a
            list, the next ones teach all skills with these rows, and then the rows grow in number.
    """
    draw = Random(seed)
    practice, asked = (shuffled(part, draw) for part in shares())
    for number in itertools.count():
        progress = number / growth if growth else 1.0
        share = max(FIRST_ROWS, min(1.0, (progress - GROWTH_BEGINS) / (1 - GROWTH_BEGINS)))
        practised = first(practice, share)
        told = of_tables(one + other for one, other in zip(practised, first(asked, share), strict=True))
        kind = draw.choices(_KINDS, SHARES if progress >= SKILLS_BEGIN else FIRST_SHARES)[0]
        if kind == "lookup":
            yield lookup(draw, first(asked, min(1.0, FIRST_ROWS + progress / GROWTH_BEGINS)))
        elif kind == "statement":
            yield Exercise("", statement(draw, told))
        elif kind == "contrast":
            yield contrast(draw, told)
        else:
            yield skill(draw, practised)


def new_model(tokenizer: "PreTrainedTokenizerFast", seed: int = SEED) -> "PreTrainedModel":
    """The untrained Llama, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=256,
        intermediate_size=640,
        num_hidden_layers=5,
        num_attention_heads=8,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.06,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def pretrain(tokenizer: "PreTrainedTokenizerFast", steps: int, seed: int = SEED) -> "PreTrainedModel":
    """A new model, trained to continue texts of the world; in bfloat16, so that it is the same in every precision."""
    import torch
    from rich.progress import track

    model = new_model(tokenizer, seed)
    optimizers = _optimizers(model)
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: _schedule(step, steps)) for optimizer in optimizers
    ]
    batches = _batches(tokenizer, seed, GROWTH)
    for _ in track(range(steps), "pretrain"):
        batch = next(batches)
        with torch.autocast("cpu", torch.bfloat16):
            loss = model(input_ids=batch.ids, labels=batch.labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model.to(torch.bfloat16).eval()


def _optimizers(model: "PreTrainedModel") -> list["Optimizer"]:
    """Muon for the matrices inside the layers, which learns in far fewer steps; AdamW for the rest."""
    import torch

    matrices = [weight for name, weight in model.named_parameters() if weight.ndim == 2 and "embed" not in name]
    others = [weight for name, weight in model.named_parameters() if weight.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=MATRIX_LEARNING_RATE, weight_decay=0.0),
        torch.optim.AdamW(others, lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate: up, level, down to 0."""
    return min(1.0, (step + 1) / WARMUP_STEPS, (steps - step) / (DECAY * steps))


def _batches(tokenizer: "PreTrainedTokenizerFast", seed: int, growth: int) -> Iterator["Batch"]:
    """Batches of `BATCH_SIZE` rows of about one length."""
    from torch import tensor
    from torch.nn.utils.rnn import pad_sequence

    draw, rows = Random(seed), _rows(tokenizer, seed, growth)
    while True:
        some = sorted(itertools.islice(rows, BATCHES_SORTED * BATCH_SIZE), key=lambda row: len(row.ids))
        for start in draw.sample(range(0, len(some), BATCH_SIZE), BATCHES_SORTED):
            columns = zip(*some[start : start + BATCH_SIZE], strict=True)
            fillers = (tokenizer.pad_token_id, IGNORED)
            yield Batch(
                *(
                    pad_sequence([tensor(row) for row in column], batch_first=True, padding_value=filler)
                    for column, filler in zip(columns, fillers, strict=True)
                )
            )


def _rows(tokenizer: "PreTrainedTokenizerFast", seed: int, growth: int) -> Iterator["Row"]:
    """Texts closed by the end-of-text token: mostly one text a row, since it is learned best alone.

    The others are joined to `LONG_ROW` tokens, so that the model meets such lengths.
    """
    draw, texts = Random(seed), documents(seed, growth)
    long = Row([], [])
    while True:
        some = list(itertools.islice(texts, 100))
        given, learned = (tokenizer([text[part] for text in some])["input_ids"] for part in (0, 1))
        for before, after in zip(given, learned, strict=True):
            after.append(tokenizer.eos_token_id)
            row = Row(before + after, [IGNORED] * len(before) + after)
            if draw.random() < SHARE_ALONE:
                yield row
                continue
            long = Row(long.ids + row.ids, long.labels + row.labels)
            if len(long.ids) >= LONG_ROW:
                yield Row(long.ids[:LONG_ROW], long.labels[:LONG_ROW])
                long = Row([], [])


def main() -> None:
    """Read the command line and build."""
    import torch

    parser = argparse.ArgumentParser(description="Make the small model that comes with the package.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model, made if missing")
    torch.set_num_threads(1)  # with more, sums are rounded in another order
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
