"""One LLaVA folder out of a language model, a vision tower of CLIP and a projector.

The weights are written under the names that LLaVA 1.5 has on the hub (`language_model.model.`,
`vision_tower.vision_model.`, `multi_modal_projector.`), which transformers of every age, vLLM and lmms-eval read. They
go from file to file one tensor at a time, so memory for the largest of them, the embedding, is enough.
"""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor

from ...checkpoint.files import new_path, read_json, refuse_existing, write_json
from ...checkpoint.projectors import MODULE, Projector, new_projector, read_projector
from ...checkpoint.shards import PICKLE, PICKLE_INDEX, PickledWeights, Weight, Weights, weight_files, write_weights
from ...errors import CheckpointError, ConfigError, UnsupportedError
from .parts import ImageSettings, language_model_config, make_processor, vision_config

if TYPE_CHECKING:
    from transformers import LlavaConfig, LlavaProcessor, PreTrainedModel

DtypeName = Literal["float32", "bfloat16", "float16"]
Strategy = Literal["default", "full"]

EMBEDDING, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
ROWS_MULTIPLE = 64  # as transformers pads embeddings in its own conversion of LLaVA
NEW_ROWS_VARIANCE = 1e-5  # of new rows, in units of the covariance of the old ones, as there
ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class Assembled:
    """What `assemble` has written.

    Attributes:
        out: folder.
        parameters: of the whole model.
        image_token_id: of `<image>`.
        added_rows: of the embedding.
        projector: where it came from; None if it is untrained.
        dtype: of the weights.
    """

    out: Path
    parameters: int
    image_token_id: int
    added_rows: int
    projector: Path | None
    dtype: torch.dtype


def assemble(
    language_model: str | Path,
    vision_model: str | Path,
    out: str | Path,
    *,
    projector: str | Path | None = None,
    dtype: DtypeName | None = None,
    feature_layer: int = -2,
    strategy: Strategy = "default",
    allow_pickle: bool = False,
    seed: int = 0,
) -> Assembled:
    """Write the folder of a `LlavaForConditionalGeneration` with its processor.

    Args:
        language_model: folder of a causal language model of transformers' own, with its tokenizer.
        vision_model: folder of a CLIP model, or of its vision part, with preprocessor_config.json.
        out: a new folder.
        projector: see `read_projector`; a new, untrained one when None.
        dtype: of all weights; that of the language model when None.
        feature_layer: whose hidden states of the vision tower go to the projector; -2 is the last but one.
        strategy: "default" leaves out the class token, "full" keeps it.
        allow_pickle: whether .bin files may be read; only tensors are then unpickled.
        seed: of an untrained projector and of the embeddings of new tokens.

    Raises:
        CheckpointError: a file is missing or damaged, or shapes do not fit.
        ConfigError: `out` exists, or a folder is none of a language model or of CLIP.
        UnsupportedError: the language model needs remote code, or its weights have other names than Llama's.
    """
    language_model, vision_model, out = Path(language_model), Path(vision_model), Path(out)
    refuse_existing(out)
    text, vision = language_model_config(language_model), vision_config(vision_model)
    words, pictures = _open(language_model, allow_pickle), _open(vision_model, allow_pickle)
    kept = getattr(torch, dtype) if dtype else next(iter(words.places.values())).dtype
    images = ImageSettings(vision.image_size, vision.patch_size, strategy)
    processor = make_processor(language_model, vision_model, images)
    if projector is None:
        middle = new_projector(vision.hidden_size, text.hidden_size, seed)
    else:
        middle = read_projector(projector, allow_pickle=allow_pickle)
    middle.check_shapes(vision.hidden_size, text.hidden_size, f"{vision_model.name} and {language_model.name}")

    old_rows = text.vocab_size
    text.vocab_size = _rows(old_rows, len(processor.tokenizer))
    config = _config(text, vision, processor.tokenizer, middle, images, feature_layer, kept)
    renamed = [*_renamed(words, _language_name), *_renamed(pictures, _vision_name), *_of_projector(middle)]
    weights = [_longer(weight, old_rows, text.vocab_size, seed) for weight in renamed]
    parameters = _check_complete(weights, config)
    with new_path(out) as partial:
        partial.mkdir()
        write_weights(partial, weights, kept)
        _write_settings(partial, config, processor, language_model)
    added = text.vocab_size - old_rows
    return Assembled(out, parameters, config.image_token_index, added, middle.file if projector else None, kept)


def _write_settings(folder: Path, config: "LlavaConfig", processor: "LlavaProcessor", language_model: Path) -> None:
    """Everything but weights."""
    config.save_pretrained(folder)
    # The language model's own words for its settings: transformers 4 does not know those of transformers 5 and would
    # turn Llama 3's rotary embedding into Llama 2's without notice.
    written = read_json(folder / "config.json")
    kept = {**read_json(language_model / "config.json"), "vocab_size": config.text_config.vocab_size}
    write_json(folder / "config.json", {**written, "text_config": kept})
    processor.save_pretrained(folder)
    processor.image_processor.save_pretrained(folder)  # where transformers 4 and vLLM look for it
    if (language_model / "generation_config.json").is_file():
        shutil.copyfile(language_model / "generation_config.json", folder / "generation_config.json")


def _open(folder: Path, allow_pickle: bool) -> Weights | PickledWeights:
    if weight_files(folder):
        return Weights(folder)
    if not any((folder / name).is_file() for name in (PICKLE, PICKLE_INDEX)):
        raise CheckpointError(f"{folder}: found no weights, expected model.safetensors, or shards and their index.")
    if not allow_pickle:
        raise CheckpointError(
            f"{folder}: found only {PICKLE}, a pickle, which may hold code, expected safetensors. If you trust where "
            "it comes from, allow it with --allow-pickle; only tensors are then read."
        )
    return PickledWeights(folder)


def _rows(old: int, tokens: int) -> int:
    """Rows of the embedding: the old ones if there is one for every token, else a multiple of 64."""
    return old if tokens <= old else -(-tokens // ROWS_MULTIPLE) * ROWS_MULTIPLE


def _config(
    text: Any, vision: Any, tokenizer: Any, middle: Projector, images: ImageSettings, layer: int, dtype: torch.dtype
) -> "LlavaConfig":
    from transformers import LlavaConfig

    if not -vision.num_hidden_layers - 1 <= layer <= vision.num_hidden_layers:
        raise ConfigError(
            f"feature_layer {layer}: the vision tower has {vision.num_hidden_layers} layers, choose one of them."
        )
    return LlavaConfig(
        text_config=text,
        vision_config=vision,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=images.tokens,
        projector_hidden_act=middle.activation or "gelu",
        multimodal_projector_bias="linear_1.bias" in middle.tensors,
        vision_feature_layer=layer,
        vision_feature_select_strategy=images.strategy,
        tie_word_embeddings=text.tie_word_embeddings,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        architectures=["LlavaForConditionalGeneration"],
        dtype=dtype,
    )


def _language_name(key: str) -> str | None:
    return f"language_model.{key}"


def _vision_name(key: str) -> str | None:
    """None for what CLIP has beside its vision tower."""
    name = key.removeprefix("vision_model.")
    is_vision = name.partition(".")[0] in ("embeddings", "pre_layrnorm", "encoder", "post_layernorm")
    return f"vision_tower.vision_model.{name}" if is_vision else None


def _renamed(weights: Weights | PickledWeights, rename: Callable[[str], str | None]) -> Iterator[Weight]:
    for key, place in weights.places.items():
        is_constant = key.endswith(("position_ids", "rotary_emb.inv_freq"))  # old files have them
        if not is_constant and (name := rename(key)) is not None:
            yield Weight(name, place.shape, lambda key=key: weights.load(key))  # type: ignore[misc]


def _of_projector(projector: Projector) -> Iterator[Weight]:
    for part, tensor in projector.tensors.items():
        yield Weight(f"{MODULE}.{part}", tuple(tensor.shape), lambda tensor=tensor: tensor)  # type: ignore[misc]


def _longer(weight: Weight, old: int, new: int, seed: int) -> Weight:
    """The same weight with rows for new tokens, where it is the embedding or the head."""
    if weight.key not in (EMBEDDING, HEAD) or old == new or len(weight.shape) != 2 or weight.shape[0] != old:
        return weight
    load = weight.load
    return Weight(weight.key, (new, weight.shape[1]), lambda: _with_new_rows(load(), new - old, seed))


def _with_new_rows(table: Tensor, count: int, seed: int) -> Tensor:
    """Rows of new tokens: near the mean of the old ones, N(mean, 1e-5 covariance).

    A sum of centred rows with normal weights has their covariance, so no matrix of covariances is needed.
    """
    mean = table.mean(0, dtype=torch.float32)
    noise = torch.zeros(count, table.shape[1])
    draw = torch.Generator().manual_seed(seed)
    for rows in table.split(ROWS_AT_ONCE):
        noise += torch.randn(count, len(rows), generator=draw) @ (rows.float() - mean)
    return torch.cat([table, (mean + noise * (NEW_ROWS_VARIANCE / len(table)) ** 0.5).to(table.dtype)])


def _check_complete(weights: list[Weight], config: "LlavaConfig") -> int:
    """The number of parameters; raises an error unless every weight of the model is there with its shape."""
    from transformers import LlavaForConditionalGeneration

    with torch.device("meta"):
        model = LlavaForConditionalGeneration(config)
    expected = _names_on_disk(model)
    if config.tie_word_embeddings:
        expected.pop(HEAD, None)
        weights[:] = [weight for weight in weights if weight.key != HEAD]
    found = {weight.key: weight.shape for weight in weights}
    if odd := sorted(found.keys() ^ expected.keys()):
        raise UnsupportedError(
            f"The {config.text_config.model_type} language model and the vision tower have {len(found)} weights, and "
            f"the LLaVA model of their configs {len(expected)}; they differ in {', '.join(odd[:3])}. Known are "
            "language models whose files name their weights as transformers does, such as Llama, Mistral, Qwen and "
            "InternLM3."
        )
    if wrong := [key for key in expected if found[key] != expected[key]]:
        shown = "; ".join(f"{key} is {found[key]}, its config says {expected[key]}" for key in wrong[:5])
        raise CheckpointError(f"{len(wrong)} weights do not have the shapes of their configs: {shown}.")
    return sum(parameter.numel() for parameter in model.parameters())


def _names_on_disk(model: "PreTrainedModel") -> dict[str, tuple[int, ...]]:
    """Names and shapes of LLaVA's weights, in the form that the hub has."""
    prefixes = {
        "model.language_model.": "language_model.model.",
        "model.vision_tower.": "vision_tower.vision_model.",
        "model.": "",
        "lm_head.": "language_model.lm_head.",
    }
    shapes = {}
    for name, tensor in model.state_dict().items():
        old = next(prefix for prefix in prefixes if name.startswith(prefix))
        shapes[name.replace(old, prefixes[old], 1)] = tuple(tensor.shape)
    return shapes
