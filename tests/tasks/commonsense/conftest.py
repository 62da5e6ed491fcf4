"""A small random Llama with its own tokenizer, and questions it can learn to answer."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

ROOT = Path(__file__).parents[3]
SMALL: dict[str, Any] = {
    "rank": 4,
    "alpha": 8,
    "batch_size": 8,
    "micro_batch_size": 4,
    "max_steps": 12,
    "learning_rate": 3e-3,
    "warmup_steps": 2,
    "logging_steps": 2,
    "save_steps": 4,
    "max_tokens": 64,
}
ANSWERS = ("answer1", "answer2", "answer3", "answer4")


def make_items(count: int, seed: int) -> list[dict[str, str]]:
    """Questions whose answer is the number in them."""
    draw = random.Random(seed)
    items = []
    for _ in range(count):
        answer = draw.choice(ANSWERS)
        words = " ".join(draw.choices(("red", "blue", "round", "cold", "old"), k=draw.randint(1, 6)))
        items.append(
            {
                "instruction": f"Which is it: {words}, number {answer[-1]}?\n\nAnswer format: {'/'.join(ANSWERS)}",
                "input": "",
                "output": f"the correct answer is {answer}",
                "answer": answer,
            }
        )
    return items


def write_model(folder: Path, texts: list[str]) -> Path:
    """A random Llama of 50 thousand parameters with a byte-level BPE tokenizer trained on the texts."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=640, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    bpe.train_from_iterator(texts, trainer)
    bpe.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token="</s>").save_pretrained(folder)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(bpe.get_vocab()),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from moslora.tasks.commonsense.prompt import training_prompt

    texts = [training_prompt(item["instruction"]) + item["output"] for item in make_items(50, seed=0)]
    return write_model(tmp_path_factory.mktemp("model"), texts)


@pytest.fixture(scope="session")
def questions(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.json and toy/test.json."""
    folder = tmp_path_factory.mktemp("questions")
    (folder / "toy").mkdir()
    (folder / "train.json").write_text(json.dumps(make_items(120, seed=1)))
    (folder / "toy" / "test.json").write_text(json.dumps(make_items(12, seed=2)))
    return folder


@pytest.fixture(scope="session")
def trained(tiny_model: Path, questions: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that has learned the form of the answer."""
    from moslora.tasks.commonsense.config import CommonsenseTrainConfig
    from moslora.tasks.commonsense.train import train

    folder = tmp_path_factory.mktemp("runs") / "run"
    config = CommonsenseTrainConfig(
        model=str(tiny_model),
        data=(str(questions / "train.json"),),
        target_modules=("all-linear",),
        rank=8,
        dropout=0.0,
        batch_size=8,
        micro_batch_size=8,
        max_steps=60,
        learning_rate=2e-2,
        warmup_steps=5,
        logging_steps=10,
        save_steps=60,
        train_on_inputs=False,
    )
    train(config, folder)
    return folder


@pytest.fixture
def config(trained: Path, questions: Path, tmp_path: Path) -> Any:
    """Settings of an evaluation of a fresh copy of the run."""
    from moslora.tasks.commonsense.config import CommonsenseEvalConfig

    copy = tmp_path / "run"
    copy.mkdir()
    for name in ("run.json", "adapter"):
        (copy / name).symlink_to(trained / name)
    return CommonsenseEvalConfig(
        run=copy, data=questions, benchmarks=("toy",), decoding="greedy", max_new_tokens=8, batch_size=5
    )


@pytest.fixture(scope="session")
def moslora_command() -> list[str]:
    """The command line of `moslora`, for a process of its own."""
    return [sys.executable, "-c", "import sys; from moslora.cli import main; sys.exit(main())"]


@pytest.fixture(scope="session")
def small_config(tiny_model: Path, questions: Path) -> Any:
    """Settings of a training run of some seconds."""
    from moslora.tasks.commonsense.config import CommonsenseTrainConfig

    return CommonsenseTrainConfig(model=str(tiny_model), data=(str(questions / "train.json"),), **SMALL)


@pytest.fixture(scope="session")
def small_run(small_config: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run of these settings, undisturbed."""
    from moslora.tasks.commonsense.train import train

    folder = tmp_path_factory.mktemp("small") / "run"
    train(small_config, folder)
    return folder
