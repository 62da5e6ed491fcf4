"""Adapter files: read with errors that say what is wrong, exported to plain LoRA, imported, merged."""

from .authors import import_adapter
from .export import ExportReport, export_adapter
from .layers import Adapter, Layer, norm
from .load import PEFT_TYPES as EXPORTABLE_TYPES
from .load import load_adapter
from .merge import merge_adapter
from .mix import MixReport, mix_adapters, read_ranks

__all__ = [
    "EXPORTABLE_TYPES",
    "Adapter",
    "ExportReport",
    "Layer",
    "MixReport",
    "export_adapter",
    "import_adapter",
    "load_adapter",
    "merge_adapter",
    "mix_adapters",
    "norm",
    "read_ranks",
]
