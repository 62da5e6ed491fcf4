"""MoSLoRA in PEFT's tables, so that saved adapters load by their type. Nothing of PEFT is replaced."""

from peft import mapping
from peft.utils import PeftType, hotswap

from .config import MosLoraConfig, MosPeftType
from .model import MosLoraModel

# PEFT's hotswap pads or crops one axis of a factor; the mixer has two, and the halves of a butterfly would move.
KEPT_BY_A_HOTSWAP = ("r", "rank_pattern", "mixer", "mixer_pattern")


def register() -> None:
    """Make PEFT know the type MOSLORA; calling it again changes nothing."""
    kind = MosPeftType.MOSLORA
    mapping.PEFT_TYPE_TO_CONFIG_MAPPING[kind] = MosLoraConfig
    mapping.PEFT_TYPE_TO_TUNER_MAPPING[kind] = MosLoraModel
    mapping.PEFT_TYPE_TO_PREFIX_MAPPING[kind] = MosLoraModel.prefix
    hotswap.CONFIG_KEYS_TO_CHECK[kind] = [
        *hotswap.CONFIG_KEYS_TO_CHECK[PeftType.LORA],
        *KEPT_BY_A_HOTSWAP,
    ]
