"""The parts of the small vision-language model before it has learned anything: tokenizer, processor, weights."""

import itertools
from random import Random
from typing import TYPE_CHECKING

from .statements import statements
from .words import WORDS
from .world import IMAGE_SIZE, draw_world

if TYPE_CHECKING:
    from transformers import LlavaForConditionalGeneration, LlavaProcessor, PreTrainedTokenizerFast

VOCABULARY = 1536  # at most
TOKENIZER_SCENES = 1500
TOKENIZER_STATEMENTS = 10  # of each scene
PATCH_SIZE = 16  # pixels
PATCHES = (IMAGE_SIZE // PATCH_SIZE) ** 2
IMAGE_TOKEN = "<image>"
PLACE_STD = 0.5  # of the position embeddings of the vision tower at the beginning

# The image, the question, a line break and a colon; then a blank and the answer, as in the statements.
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ ' ' if message.role == 'assistant' }}"
    "{% if message.content is string %}{{ message.content }}{% else %}{% for part in message.content %}"
    "{% if part.type == 'image' %}<image>{% else %}{{ part.text }}{% endif %}"
    "{% endfor %}{% endif %}"
    "{{ eos_token if message.role == 'assistant' else '\n:' }}{% endfor %}"
)
_PIECES = r" ?[A-Za-z]+|[0-9]| ?[^\sA-Za-z0-9]+|\n| +|\s"


def new_tokenizer(seed: int) -> "PreTrainedTokenizerFast":
    """A byte-level BPE tokenizer: every word of the statements and of `WORDS` is one token."""
    from tokenizers import Regex, Tokenizer, decoders, models, trainers
    from tokenizers import pre_tokenizers as split
    from transformers import PreTrainedTokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = split.Sequence(
        [split.Split(Regex(_PIECES), "isolated"), split.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<pad>", "<s>", "</s>", IMAGE_TOKEN],
        initial_alphabet=split.ByteLevel.alphabet(),
        show_progress=False,
    )
    draw, texts = Random(seed), [f"{word} {word} {word.capitalize()}" for word in WORDS for _ in range(100)]
    for _ in range(TOKENIZER_SCENES):
        some = itertools.islice(statements(draw, draw_world(draw)), TOKENIZER_STATEMENTS)
        texts += [statement.given + statement.learned for statement in some]
    tokenizer.train_from_iterator(texts, trainer)
    made = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": IMAGE_TOKEN},
        model_max_length=512,
    )
    made.chat_template = CHAT_TEMPLATE
    return made


def new_processor(tokenizer: "PreTrainedTokenizerFast") -> "LlavaProcessor":
    """CLIP's image processor in its PIL form, for pictures of `IMAGE_SIZE` pixels, and the tokenizer."""
    from transformers import LlavaProcessor
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    half = [0.5, 0.5, 0.5]
    images = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIZE}, crop_size=square, image_mean=half, image_std=half
    )
    return LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=PATCH_SIZE,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )


def new_model(tokenizer: "PreTrainedTokenizerFast", seed: int) -> "LlavaForConditionalGeneration":
    """A CLIP vision tower, a projector of two layers and a Llama, untrained, float32."""
    import torch
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=IMAGE_SIZE,
        patch_size=PATCH_SIZE,
        projection_dim=128,
    )
    text = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        initializer_range=0.06,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision,
            text_config=text,
            image_token_index=tokenizer.convert_tokens_to_ids(IMAGE_TOKEN),
            image_seq_length=PATCHES,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    # CLIP's places begin so small beside its patches that it takes long to find out where things are.
    torch.nn.init.normal_(model.model.vision_tower.embeddings.position_embedding.weight, std=PLACE_STD)
    return model
