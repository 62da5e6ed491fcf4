"""A small random LLaVA with its own tokenizer and three chat templates, and conversations about real pictures."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import torch
from PIL import Image
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from tests.helpers import data_folder

IMAGE_SIZE, PATCH_SIZE = 32, 8
IMAGE_TOKENS = (IMAGE_SIZE // PATCH_SIZE) ** 2

TEMPLATES = {
    "llama3": (
        "{{ bos_token }}{% for message in messages %}<|start_header_id|>{{ message['role'] }}<|end_header_id|>\n\n"
        "{{ message['content'] | trim }}<|eot_id|>{% endfor %}"
        "{% if add_generation_prompt %}<|start_header_id|>assistant<|end_header_id|>\n\n{% endif %}"
    ),
    "chatml": (
        "{{ bos_token }}{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
        "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    ),
    # As processors of LLaVA 1.5 write it: images and texts apart, and no token at the end of an answer.
    "vicuna": (
        "{% for message in messages %}{{ message['role'] | upper }}: "
        "{% for part in message['content'] if part['type'] == 'image' %}<image>\n{% endfor %}"
        "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }} {% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
    ),
}
SPECIAL = (
    *("<s>", "</s>", "<pad>", "<image>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
    *("<|im_start|>", "<|im_end|>"),
)
TEXTS = ("Is there a red shape above a circle? yes no What is in the picture? A dog, a cat, a teapot. user assistant",)


def write_tokenizer(folder: Path, template: str) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer with the special tokens of three chat formats."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400,
        special_tokens=[AddedToken(token, special=True, normalized=False) for token in SPECIAL],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(TEXTS, trainer)
    end = {"llama3": "<|eot_id|>", "chatml": "<|im_end|>"}.get(template, "</s>")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token="<s>", eos_token=end, pad_token="<pad>")
    tokenizer.chat_template = TEMPLATES[template]
    tokenizer.save_pretrained(folder)
    return tokenizer


def write_llava(folder: Path, template: str = "llama3", **text: int) -> Path:
    """A random LLaVA of 100 thousand parameters, with its processor."""
    tokenizer = write_tokenizer(folder, template)
    sizes = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
    }
    vision = CLIPVisionConfig(
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=3,
        num_attention_heads=2,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=16,
    )
    language = LlamaConfig(
        vocab_size=len(tokenizer),
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **(sizes | text),
    )
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=vision,
        text_config=language,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=IMAGE_TOKENS,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIZE}, crop_size={"height": IMAGE_SIZE, "width": IMAGE_SIZE}
        ),
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=tokenizer.chat_template,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llava(tmp_path_factory.mktemp("llava"))


def row(number: int, image: str | None, *turns: str) -> dict[str, Any]:
    """A row of LLaVA's JSON from texts of human and assistant in turn."""
    speakers = ("human", "gpt")
    talk = [{"from": speakers[place % 2], "value": text} for place, text in enumerate(turns)]
    return {"id": str(number), **({"image": image} if image else {}), "conversations": talk}


@pytest.fixture(scope="session")
def shapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.json and images/: 48 real questions about pictures of SHAPES, and 24 rows of text alone."""
    source = data_folder("shapes_vqa")
    folder = tmp_path_factory.mktemp("shapes")
    (folder / "images").mkdir()
    pictures = numpy.load(source / "train.tiny.input.npy")
    questions = (source / "train.tiny.query_str.txt").read_text().splitlines()
    answers = (source / "train.tiny.output").read_text().split()
    rows = []
    for number, (picture, question, answer) in enumerate(zip(pictures, questions, answers, strict=True)):
        if number < 48:
            Image.fromarray(picture[:, :, ::-1].copy()).save(folder / "images" / f"{number}.png")
            turns = (f"<image>\nIs there {question}?", answer, "Are you sure?", f"{answer}, I am.")
            rows.append(row(number, f"{number}.png", *turns[: 2 + 2 * (number % 2)]))
    rows += [
        row(100 + number, None, f"Say {number}.", " ".join([str(number)] * (1 + number % 9))) for number in range(24)
    ]
    (folder / "train.json").write_text(json.dumps(rows))
    return folder


@pytest.fixture(scope="session")
def moslora_command() -> list[str]:
    """The command line of `moslora`, for a process of its own."""
    return [sys.executable, "-c", "import sys; from moslora.cli import main; sys.exit(main())"]
