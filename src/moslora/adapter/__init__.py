"""MoSLoRA as a method of an unmodified PEFT."""

from .config import MosLoraConfig, MosPeftType
from .fold import to_lora
from .model import MosLoraModel
from .registration import register

__all__ = ["MosLoraConfig", "MosLoraModel", "MosPeftType", "register", "to_lora"]

register()
