"""MoSLoRA (Mixture-of-Subspaces in Low-Rank Adaptation, arXiv:2406.11909) for PEFT.

`import moslora` makes PEFT know the method: `PeftModel.from_pretrained` then loads MoSLoRA adapters. The names below
are resolved on first use, so that importing the package, and `moslora --help`, costs no import of torch.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

import wrapt

if TYPE_CHECKING:
    from .adapter import (
        MosLoraConfig,
        MosLoraModel,
        create_lorafa_optimizer,
        initialize_mixer,
        to_lora,
        train_off_diagonal,
    )
    from .checkpoint import export_adapter, import_adapter, load_adapter, mix_adapters
    from .equation import Factors, adapter_output, delta_weight, fold
    from .errors import MoSLoRAError, UnsupportedError

__version__ = "0.1.0"

__all__ = [
    "Factors",
    "MoSLoRAError",
    "MosLoraConfig",
    "MosLoraModel",
    "UnsupportedError",
    "adapter_output",
    "create_lorafa_optimizer",
    "delta_weight",
    "export_adapter",
    "fold",
    "import_adapter",
    "initialize_mixer",
    "load_adapter",
    "mix_adapters",
    "to_lora",
    "train_off_diagonal",
]

_HOME = {
    "Factors": "equation",
    "MoSLoRAError": "errors",
    "MosLoraConfig": "adapter",
    "MosLoraModel": "adapter",
    "UnsupportedError": "errors",
    "adapter_output": "equation",
    "create_lorafa_optimizer": "adapter",
    "delta_weight": "equation",
    "export_adapter": "checkpoint",
    "fold": "equation",
    "import_adapter": "checkpoint",
    "initialize_mixer": "adapter",
    "load_adapter": "checkpoint",
    "mix_adapters": "checkpoint",
    "to_lora": "adapter",
    "train_off_diagonal": "adapter",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'moslora' has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _register_when_peft_is_there(peft: object) -> None:
    # While `moslora.adapter` itself is importing PEFT, it is in sys.modules already and registers on its own.
    if "moslora.adapter" not in sys.modules:
        importlib.import_module(".adapter", __name__)


wrapt.register_post_import_hook(_register_when_peft_is_there, "peft")
