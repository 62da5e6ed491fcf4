"""MoSLoRA as a method of an unmodified PEFT."""

from .config import MosLoraConfig, MosPeftType
from .fold import to_lora
from .model import MosLoraModel
from .optimizers import create_lorafa_optimizer
from .registration import register

__all__ = ["MosLoraConfig", "MosLoraModel", "MosPeftType", "create_lorafa_optimizer", "register", "to_lora"]

register()
