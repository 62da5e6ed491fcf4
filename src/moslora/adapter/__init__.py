"""MoSLoRA as a method of an unmodified PEFT."""

from ..ops import Kernel
from .blocks import OffDiagonal, train_off_diagonal
from .config import MosLoraConfig, MosPeftType
from .fold import to_lora
from .forward import kernels_used
from .gradient import awaits_gradient, initialize_mixer
from .model import MosLoraModel
from .optimizers import create_lorafa_optimizer
from .registration import register
from .saved import saved_bytes

__all__ = [
    "Kernel",
    "MosLoraConfig",
    "MosLoraModel",
    "MosPeftType",
    "OffDiagonal",
    "awaits_gradient",
    "create_lorafa_optimizer",
    "initialize_mixer",
    "kernels_used",
    "register",
    "saved_bytes",
    "to_lora",
    "train_off_diagonal",
]

register()
