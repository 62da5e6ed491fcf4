"""The shipped vision-language model: its files, how transformers loads it, and what it learned."""

import hashlib
import json
from random import Random

import pytest
import torch
from transformers import AutoModelForImageTextToText, AutoProcessor, LlavaForConditionalGeneration

from moslora.embedded import vision_model_folder
from moslora.embedded.vision.knowledge import measure
from moslora.embedded.vision.parts import PATCHES, new_processor, new_tokenizer
from moslora.embedded.vision.questions import draw_questions, to_prompt
from moslora.embedded.vision.words import WORDS
from moslora.embedded.vision.world import COLOURS, GROUNDS, IMAGE_SIZE, SHAPES


@pytest.fixture(scope="module")
def processor():
    return AutoProcessor.from_pretrained(vision_model_folder(), backend="pil")


@pytest.fixture(scope="module")
def model():
    return AutoModelForImageTextToText.from_pretrained(vision_model_folder(), dtype=torch.float32).eval()


def test_the_folder_is_small_and_has_what_transformers_expects():
    files = {path.name: path.stat().st_size for path in vision_model_folder().iterdir()}
    assert files.keys() == {
        *("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"),
        *("chat_template.jinja", "processor_config.json", "README.md"),
    }
    assert sum(files.values()) < 12_000_000


def test_the_model_card_states_parameters_and_hash_of_the_weights(model):
    card = (vision_model_folder() / "README.md").read_text(encoding="utf-8")
    assert f"{model.num_parameters():,} parameters" in card
    assert hashlib.sha256((vision_model_folder() / "model.safetensors").read_bytes()).hexdigest() in card


def test_nothing_of_this_machine_is_in_the_files():
    for path in vision_model_folder().glob("*.json"):
        if path.name != "tokenizer.json":
            assert "/" not in path.read_text(encoding="utf-8").replace("</s>", "")


def test_the_seed_gives_the_shipped_tokenizer_and_processor(tmp_path):
    new_processor(new_tokenizer(0)).save_pretrained(tmp_path)
    for name in ("tokenizer.json", "tokenizer_config.json", "processor_config.json", "chat_template.jinja"):
        assert (tmp_path / name).read_text() == (vision_model_folder() / name).read_text()


def test_transformers_own_class_loads_it_as_a_llava_of_a_clip_and_a_llama(model):
    assert type(model) is LlavaForConditionalGeneration
    assert model.config.vision_config.model_type == "clip_vision_model"
    assert model.config.text_config.model_type == "llama"
    assert json.loads((vision_model_folder() / "config.json").read_text())["tie_word_embeddings"] is True


def test_an_image_is_shown_as_one_token_a_patch(processor, model):
    question = draw_questions(1, Random(0))[0]
    shown = processor(images=question.picture, text=f"<s><image>{to_prompt(question)}\n:", return_tensors="pt")
    assert (shown["input_ids"] == processor.image_token_id).sum() == PATCHES
    assert shown["pixel_values"].shape == (1, 3, IMAGE_SIZE, IMAGE_SIZE)
    with torch.inference_mode():
        features = model.get_image_features(shown["pixel_values"]).pooler_output
    assert features[0].shape == (PATCHES, model.config.text_config.hidden_size)


@pytest.mark.parametrize("text", ["a red star.", "  two blanks\n\n\tand a tab ", "Ünïcode 日本語 🎻", ""])
def test_the_tokenizer_gives_back_every_text(processor, text):
    assert processor.tokenizer.decode(processor.tokenizer(text)["input_ids"]) == text


def test_every_word_of_scenes_and_questions_is_one_token(processor):
    words = {*WORDS, *SHAPES, *COLOURS, *" ".join(GROUNDS).split()}
    assert [word for word in sorted(words) if len(processor.tokenizer(f" {word}")["input_ids"]) != 1] == []


def test_the_chat_template_puts_the_answer_behind_a_colon_as_in_the_statements(processor):
    talk = [
        {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "Which shape is red?"}]},
        {"role": "assistant", "content": [{"type": "text", "text": "star"}]},
    ]
    assert processor.apply_chat_template(talk) == "<s><image>Which shape is red?\n: star</s>"
    texts = [{"role": "user", "content": "<image>\nWhich?"}, {"role": "assistant", "content": "star"}]
    assert processor.tokenizer.apply_chat_template(texts, tokenize=False) == "<s><image>\nWhich?\n: star</s>"


@pytest.mark.slow
def test_the_model_knows_what_its_card_says(model, processor):
    """Each share of the card lies within sampling error of a new measurement."""
    card = (vision_model_folder() / "README.md").read_text(encoding="utf-8")
    found = measure(model, processor, count=800, seed=5)
    for name, share in found.items():
        (line,) = [line for line in card.splitlines() if line.startswith(f"| {name} |")]
        stated = int(line.split("|")[2].strip().removesuffix(" %")) / 100
        assert abs(share - stated) < 0.12, (name, share, stated)
