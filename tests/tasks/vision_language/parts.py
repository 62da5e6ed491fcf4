"""Small random parts of a LLaVA model as folders, in the shapes that the hub has."""

from pathlib import Path

import torch
from transformers import AutoTokenizer, CLIPVisionConfig, CLIPVisionModel, LlamaConfig, LlamaForCausalLM
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from moslora.embedded import model_folder

VISION_SIZE, TEXT_SIZE = 24, 32
IMAGE_SIZE, PATCH_SIZE = 28, 14


def spread(model: torch.nn.Module, std: float = 0.15) -> torch.nn.Module:
    """Give every parameter a value of a size that matters: transformers' start is nearly linear and all biases 0."""
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=draw) * std)
    return model


def language_model_folder(folder: Path, dtype: torch.dtype = torch.float32, **settings) -> Path:
    """A Llama of two layers with the tokenizer and chat template of the package's small model."""
    tokenizer = AutoTokenizer.from_pretrained(model_folder())
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": TEXT_SIZE, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
    sizes |= {"num_key_value_heads": 2, "vocab_size": len(tokenizer), "max_position_embeddings": 128}
    torch.manual_seed(0)
    spread(LlamaForCausalLM(LlamaConfig(**(sizes | settings)))).to(dtype).save_pretrained(folder)
    return folder


def vision_model_folder(folder: Path, **settings) -> Path:
    """A vision tower of CLIP with three layers and its image processor."""
    sizes = {"hidden_size": VISION_SIZE, "intermediate_size": 40, "num_hidden_layers": 3, "num_attention_heads": 4}
    sizes |= {"image_size": IMAGE_SIZE, "patch_size": PATCH_SIZE}
    torch.manual_seed(1)
    spread(CLIPVisionModel(CLIPVisionConfig(**(sizes | settings)))).save_pretrained(folder)
    square = {"height": IMAGE_SIZE, "width": IMAGE_SIZE}
    CLIPImageProcessorPil(size={"shortest_edge": IMAGE_SIZE}, crop_size=square).save_pretrained(folder)
    return folder


def projector_tensors(vision: int = VISION_SIZE, text: int = TEXT_SIZE) -> dict[str, torch.Tensor]:
    """Weights and biases of two linear layers, by the ends of transformers' names."""
    draw = torch.Generator().manual_seed(2)
    shapes = {"linear_1.weight": (text, vision), "linear_1.bias": (text,)}
    shapes |= {"linear_2.weight": (text, text), "linear_2.bias": (text,)}
    return {name: torch.randn(shape, generator=draw) * 0.3 for name, shape in shapes.items()}
