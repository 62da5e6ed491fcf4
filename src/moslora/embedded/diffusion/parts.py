"""The untrained parts of the embedded SDXL pipeline."""

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

SIDE = 64  # pixels of a picture
LATENT_SIDE = 16
LATENT_CHANNELS = 6  # SDXL has 4; with more, a small autoencoder learns sooner
TOKENS = 32  # of a caption, with its beginning and end
VOCABULARY = 996  # 512 bytes, 482 words and their parts, 2 special tokens
END_OF_WORD = "</w>"
TEXT_WIDTHS, TEXT_LAYERS = (64, 96), (2, 3)  # of the two text encoders
TIME_ID_WIDTH = 16  # of the embedding of each of the six numbers of SDXL's micro-conditioning


def new_tokenizer(captions: list[str]) -> "CLIPTokenizer":
    """A byte-level BPE tokenizer in CLIP's form, trained on these captions; every text has tokens in it."""
    from tokenizers import Tokenizer, models, normalizers, trainers
    from tokenizers import pre_tokenizers as split
    from transformers import CLIPTokenizer

    tokenizer = Tokenizer(models.BPE(end_of_word_suffix=END_OF_WORD))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = split.Sequence(
        [split.Whitespace(), split.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inside = sorted(split.ByteLevel.alphabet())
    single = [*inside, *(f"{byte}{END_OF_WORD}" for byte in inside)]
    # Named beforehand, or the trainer would number the bytes that end a word in another order every time.
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY - 2, special_tokens=single, end_of_word_suffix=END_OF_WORD, show_progress=False
    )
    tokenizer.train_from_iterator(captions, trainer)
    merges = [tuple(pair) for pair in json.loads(tokenizer.to_str())["model"]["merges"]]
    # CLIP's order: bytes, bytes that end a word, what the merges make, the two special tokens.
    words = dict.fromkeys([*single, *(left + right for left, right in merges), "<|startoftext|>", "<|endoftext|>"])
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=TOKENS)


def new_autoencoder() -> "AutoencoderKL":
    """An autoencoder that makes 16 x 16 latents of 64 x 64 pixels; it has no attention, so it is fast on a CPU."""
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 3,
        up_block_types=("UpDecoderBlock2D",) * 3,
        block_out_channels=(16, 32, 64),
        layers_per_block=1,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=2,
        sample_size=SIDE,
        scaling_factor=0.13025,
        mid_block_add_attention=False,
        force_upcast=False,
    )


def new_text_encoders(tokenizer: "CLIPTokenizer") -> tuple["CLIPTextModel", "CLIPTextModelWithProjection"]:
    """Two text encoders of different width, the second with a projection, as in SDXL."""
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    configs = [
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            projection_dim=width,
            num_hidden_layers=layers,
            num_attention_heads=width // 32,
            max_position_embeddings=TOKENS,
            hidden_act="gelu",
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        for width, layers in zip(TEXT_WIDTHS, TEXT_LAYERS, strict=True)
    ]
    return CLIPTextModel(configs[0]), CLIPTextModelWithProjection(configs[1])


def new_unet() -> "UNet2DConditionModel":
    """SDXL's denoiser at a small size: three levels, no attention on the first, text and time ids added to the time."""
    from diffusers import UNet2DConditionModel

    return UNet2DConditionModel(
        sample_size=LATENT_SIDE,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
        block_out_channels=(48, 96, 128),
        layers_per_block=1,
        transformer_layers_per_block=1,
        attention_head_dim=(2, 3, 4),  # diffusers means the number of heads
        norm_num_groups=4,
        cross_attention_dim=sum(TEXT_WIDTHS),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=TIME_ID_WIDTH,
        projection_class_embeddings_input_dim=TEXT_WIDTHS[1] + 6 * TIME_ID_WIDTH,
    )


def new_scheduler() -> "EulerDiscreteScheduler":
    """SDXL's noise and sampler."""
    from diffusers import EulerDiscreteScheduler

    return EulerDiscreteScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        prediction_type="v_prediction",
        timestep_spacing="leading",
        steps_offset=1,
    )
