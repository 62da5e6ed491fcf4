"""A small LLaVA folder, an adapter over both of its parts as a run saves it, and inputs with an image."""

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from PIL import Image
from torch import nn
from transformers import AutoProcessor, LlavaForConditionalGeneration

from moslora import MosLoraConfig
from moslora.tasks.vision_language.assemble import assemble
from tests.helpers import randomize_adapters
from tests.tasks.vision_language.parts import language_model_folder, vision_model_folder

TARGETS = r".*(language_model|vision_tower).*\.(q_proj|v_proj|down_proj|out_proj|fc1)"
BOTH_PARTS = {
    "target_modules": TARGETS,
    "r": 8,
    "lora_alpha": 16,
    "rank_pattern": {r"vision_tower\..*": 4},
    "alpha_pattern": {r"vision_tower\..*": 3},
    "mixer_pattern": {r"vision_tower\..*": "identity"},
    "modules_to_save": ["multi_modal_projector"],
}
# Layers of 64 inputs, so that they fill the blocks of 4-bit weights.
WIDE = {"hidden_size": 64, "intermediate_size": 128}


def llava_folder(root: Path, dtype: str = "float32") -> Path:
    """A LLaVA folder with its parts beside it, in `root`/llama and `root`/clip."""
    parts = language_model_folder(root / "llama", **WIDE), vision_model_folder(root / "clip")
    return assemble(*parts, root / "llava", dtype=dtype).out


def load(folder: Path, dtype: torch.dtype | None = None, **settings: Any) -> nn.Module:
    """The model, ready for evaluation."""
    return LlavaForConditionalGeneration.from_pretrained(folder, dtype=dtype or "auto", **settings).eval()


def adapt_llava(model: nn.Module, folder: Path, **settings: Any) -> PeftModel:
    """An adapter over both parts with random values, and a projector of its own, saved in `folder`."""
    adapted = get_peft_model(model, MosLoraConfig(**{**BOTH_PARTS, **settings})).eval()
    randomize_adapters(adapted, std=0.1)
    draw = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "modules_to_save" in name:
                parameter.add_(torch.randn(parameter.shape, generator=draw) * 0.1)
    adapted.save_pretrained(folder)
    return adapted


def inputs(folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A question about an image."""
    processor = AutoProcessor.from_pretrained(folder)
    image = Image.radial_gradient("L").convert("RGB").rotate(30)
    found = processor(text="USER: <image>\nwhat is it? ASSISTANT: a dog", images=image, return_tensors="pt")
    return {**found, "pixel_values": found["pixel_values"].to(dtype)}


def logits(model: nn.Module, folder: Path, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What a model says of the image."""
    with torch.no_grad():
        return model(**inputs(folder, dtype)).logits.double()
