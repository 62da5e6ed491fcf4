"""Conversations in three chat templates: what carries loss, and what evaluation will ask."""

import itertools

import pytest
import transformers

from moslora.errors import ConfigError
from moslora.tasks.vision_language.model import load_processor
from moslora.tasks.vision_language.prompt import ASSISTANT, IGNORED, SYSTEM, USER, ChatForm, Turn

from .conftest import IMAGE_TOKENS, TEMPLATES, write_llava

TALK = [
    Turn(USER, "What is yes in red? yes", has_image=True),
    Turn(ASSISTANT, "yes"),
    Turn(USER, "Sure?\nAnswer yes or no: yes"),
    Turn(ASSISTANT, " yes, 👍\nI am "),
]
ENDS = {"llama3": "<|eot_id|>", "chatml": "<|im_end|>", "vicuna": "</s>"}


@pytest.fixture(scope="module", params=TEMPLATES)
def form(request, tmp_path_factory):
    folder = write_llava(tmp_path_factory.mktemp(request.param), request.param)
    made = ChatForm(load_processor(str(folder)))
    made.name = request.param
    return made


def _decode(form, ids):
    return form.tokenizer.decode(ids, skip_special_tokens=False)


def _answers(form, labels):
    """Text of every stretch of tokens that carry loss."""
    stretches = itertools.groupby(labels, key=lambda label: label != IGNORED)
    return [_decode(form, list(stretch)) for counts, stretch in stretches if counts]


def test_loss_is_on_the_answers_and_their_ends_alone(form):
    encoded = form.encode([TALK], 500)[0]
    end, blank = ENDS[form.name], " " if form.name == "vicuna" else ""  # Vicuna's blank belongs to the first token
    assert _answers(form, encoded.labels) == [f"{blank}yes{end}", f"{blank}yes, 👍\nI am{end}"]
    assert all(label in (IGNORED, token) for token, label in zip(encoded.ids, encoded.labels, strict=True))


def test_the_image_takes_its_tokens_before_the_first_question(form):
    ids = form.encode([TALK], 500)[0].ids
    first = ids.index(form.image_token_id)
    assert ids[first : first + IMAGE_TOKENS] == [form.image_token_id] * IMAGE_TOKENS
    assert ids.count(form.image_token_id) == form.image_tokens == IMAGE_TOKENS
    assert _decode(form, ids[first + IMAGE_TOKENS :]).startswith("\nWhat is yes in red?")


def test_the_processor_itself_makes_the_same_tokens_of_the_question(form, request):
    from PIL import Image

    processor = load_processor(form.tokenizer.name_or_path)
    shown = processor(text=form.question(TALK[:1]), images=Image.new("RGB", (40, 30)), add_special_tokens=False)
    assert list(shown["input_ids"][0]) == form.question_ids(TALK[:1])


@pytest.mark.parametrize("asked", [1, 3])
def test_what_is_asked_at_evaluation_is_the_start_of_what_was_trained(form, asked):
    question, trained = form.question_ids(TALK[:asked]), form.encode([TALK], 500)[0]
    assert trained.ids[: len(question)] == question
    assert trained.labels[len(question)] == trained.ids[len(question)]
    assert form.tokenizer.convert_tokens_to_ids(ENDS[form.name]) in form.stop_ids()


def test_long_rows_lose_their_end(form):
    whole = form.encode([TALK], 500)[0]
    cut = form.encode([TALK], len(whole.ids) - 2)[0]
    assert (cut.ids, cut.labels) == (whole.ids[:-2], whole.labels[:-2])


def test_rows_of_text_alone_and_with_a_system_turn(form):
    talk = [Turn(SYSTEM, "Be short."), Turn(USER, "Is it red?"), Turn(ASSISTANT, "no")]
    encoded = form.encode([talk], 500)[0]
    assert form.image_token_id not in encoded.ids
    assert "Be short." in _decode(form, encoded.ids)
    assert [answer.strip() for answer in _answers(form, encoded.labels)] == [f"no{ENDS[form.name]}"]


def test_a_template_that_changes_what_is_said_is_refused(tmp_path):
    folder = write_llava(tmp_path)
    processor = load_processor(str(folder))
    processor.chat_template = TEMPLATES["llama3"].replace("trim", "upper")
    with pytest.raises(ConfigError, match=r"does not show every turn once|changes the texts"):
        ChatForm(processor).talk(TALK)


def test_a_model_without_a_template_is_refused(tiny_llava):
    processor = load_processor(str(tiny_llava))
    processor.chat_template = processor.tokenizer.chat_template = None
    with pytest.raises(ConfigError, match="no chat template"):
        ChatForm(processor)


def test_the_image_processor_needs_no_torchvision(tiny_llava):
    assert isinstance(load_processor(str(tiny_llava)).image_processor, transformers.CLIPImageProcessorPil)
