"""Tiny models that look at pictures, saved as those of the hub are, and runs with pictures to look at."""

from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import (
    BitImageProcessorPil,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Dinov2Config,
    Dinov2Model,
    ViTConfig,
    ViTImageProcessorPil,
    ViTModel,
)

from moslora import runs
from tests.helpers import data_folder

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


def save_vit(folder: Path) -> Path:
    """A ViT as DINO's, with the image processor of its kind."""
    torch.manual_seed(0)
    ViTModel(ViTConfig(image_size=32, patch_size=8, **SIZES)).save_pretrained(folder)
    ViTImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(folder)
    return folder


def save_dinov2(folder: Path) -> Path:
    """A DINOv2, which cuts its pictures to the centre."""
    torch.manual_seed(1)
    sizes = {key: value for key, value in SIZES.items() if key != "intermediate_size"}
    Dinov2Model(Dinov2Config(image_size=28, patch_size=7, mlp_ratio=2, **sizes)).save_pretrained(folder)
    processor = BitImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    processor.save_pretrained(folder)
    return folder


def save_clip(folder: Path) -> Path:
    """A CLIP with a tokenizer that reads letters."""
    torch.manual_seed(2)
    letters = [chr(code) for code in range(33, 127)]
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(f"{letter}</w>" for letter in letters)]
    CLIPTokenizer(vocab={word: number for number, word in enumerate(words)}, merges=[]).save_pretrained(folder)
    text = {**SIZES, "vocab_size": len(words), "max_position_embeddings": 64, "bos_token_id": 0, "eos_token_id": 1}
    vision = {**SIZES, "image_size": 32, "patch_size": 8}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=16)
    CLIPModel(config).save_pretrained(folder)
    square = {"height": 32, "width": 32}
    CLIPImageProcessorPil(size={"shortest_edge": 32}, crop_size=square).save_pretrained(folder)
    return folder


def photographs(subject: str) -> list[Path]:
    """The real photographs of one subject."""
    return sorted(data_folder(f"dreambooth/{subject}").glob("*.jpg"))


def save_run(folder: Path, subject: str, pictures: dict[tuple[int, int], Image.Image], **config: Any) -> Path:
    """A finished run as `moslora generate subject` leaves it.

    Args:
        folder: new.
        subject: of DreamBooth, whose photographs it was trained on.
        pictures: prompt index and seed -> picture.
        config: other settings.
    """
    rows = []
    (folder / "images").mkdir(parents=True)
    for (index, seed), picture in pictures.items():
        name = f"{index:04d}-{seed}.png"
        picture.save(folder / "images" / name)
        prompt = f"a sks {subject} in place {index}"
        rows.append({"file": name, "prompt_index": index, "prompt": prompt, "seed": seed})
    runs.append_rows(folder / "images" / "images.jsonl", rows)
    settings = {"method": "moslora", "prompt": f"a photo of sks {subject}", "class_prompt": f"a photo of a {subject}"}
    settings["images"] = str(data_folder(f"dreambooth/{subject}"))
    runs.write_json(folder / "run.json", {"task": "subject", "status": "done", "config": settings | config})
    return folder
