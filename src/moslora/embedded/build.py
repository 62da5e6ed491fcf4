"""Make the small model that comes with the package: its tokenizer, then its weights, all from one seed.

    OMP_NUM_THREADS=1 python -m moslora.embedded.build --out DIR

One thread of an x86 CPU needs about six minutes. The same seed gives the same tokenizer everywhere, and the same
weights wherever torch computes with the same kernels; elsewhere they differ by rounding, and the model is as good.
"""

import argparse
import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

from .world import documents

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

SEED = 0
VOCABULARY = 1024
TOKENIZER_DOCUMENTS = 30_000

STEPS = 2000
BATCH_SIZE = 24
BATCHES_SORTED = 16  # batches whose rows are sorted by length together
SHARE_ALONE = 0.7
LONG_ROW = 112  # tokens, more than a question with its prompt
IGNORED = -100  # label of padding
LEARNING_RATE = 3e-3  # after the warm-up; falls to a twentieth along half a cosine
WARMUP_STEPS = 100

# A line break and a run of blanks are words of their own, so that indentation costs one token. So is every digit, so
# that the model meets the number of `answer1` again wherever a list is numbered.
_WORDS = r" ?[A-Za-z]+| ?[0-9]| ?[^\sA-Za-z0-9]+|\n| +|\s"


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
    tokenizer.train_from_iterator(itertools.islice(documents(seed), TOKENIZER_DOCUMENTS), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", model_max_length=512
    )


def new_model(tokenizer: "PreTrainedTokenizerFast", seed: int = SEED) -> "PreTrainedModel":
    """The untrained Llama, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return LlamaForCausalLM(config)


def pretrain(tokenizer: "PreTrainedTokenizerFast", steps: int, seed: int = SEED) -> "PreTrainedModel":
    """A new model, trained to continue texts of the world. Its weights are rounded to bfloat16 and kept as float32.

    So the model is the same one whether it is loaded in float32 or in bfloat16.
    """
    import torch
    from rich.progress import track

    model = new_model(tokenizer, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.98), weight_decay=0.05)
    batches = _batches(tokenizer, seed)
    for step in track(range(steps), "pretrain"):
        for group in optimizer.param_groups:
            group["lr"] = LEARNING_RATE * _schedule(step, steps)
        ids = next(batches)
        model(input_ids=ids, labels=ids).loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
    return model.to(torch.bfloat16).float().eval()


def _schedule(step: int, steps: int) -> float:
    """Share of the learning rate."""
    return min(1.0, (step + 1) / WARMUP_STEPS) * (0.525 + 0.475 * math.cos(math.pi * step / steps))


def _batches(tokenizer: "PreTrainedTokenizerFast", seed: int, growth: int) -> Iterator["Tensor"]:
    """Token ids (BATCH_SIZE, longest row) of rows of about one length; what pads them is `IGNORED`."""
    import torch

    draw, rows = Random(seed), _rows(tokenizer, seed, growth)
    while True:
        some = sorted(itertools.islice(rows, BATCHES_SORTED * BATCH_SIZE), key=len)
        for start in draw.sample(range(0, len(some), BATCH_SIZE), BATCHES_SORTED):
            batch = [torch.tensor(row) for row in some[start : start + BATCH_SIZE]]
            yield torch.nn.utils.rnn.pad_sequence(batch, batch_first=True, padding_value=IGNORED)


def _rows(tokenizer: "PreTrainedTokenizerFast", seed: int, growth: int) -> Iterator[list[int]]:
    """Token ids of texts closed by the end-of-text token: mostly one text, since it is learned best alone.

    The others are joined to `LONG_ROW` tokens, so that the model meets such lengths.
    """
    draw, texts = Random(seed), documents(seed, growth)
    long: list[int] = []
    while True:
        for text in tokenizer(list(itertools.islice(texts, 100)))["input_ids"]:
            text.append(tokenizer.eos_token_id)
            if draw.random() < SHARE_ALONE:
                yield text
                continue
            long += text
            if len(long) >= LONG_ROW:
                yield long[:LONG_ROW]
                long = []


def main() -> None:
    """Read the command line and build."""
    import torch

    parser = argparse.ArgumentParser(description="Make the small model that comes with the package.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the model, made if missing")
    torch.set_num_threads(1)
    build(parser.parse_args().out)


if __name__ == "__main__":
    main()
