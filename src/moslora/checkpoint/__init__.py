"""Adapter files: read with errors that say what is wrong, exported to plain LoRA, imported, merged."""

from .authors import import_adapter
from .components import FOLDERS as COMPONENT_FOLDERS
from .components import component_folders
from .export import ExportReport, FormatName, export_adapter
from .layers import Adapter, Layer, norm
from .load import PEFT_TYPES as EXPORTABLE_TYPES
from .load import load_adapter
from .merge import MergeReport, merge_adapter
from .mix import MixReport, mix_adapters, read_ranks
from .projectors import projector_beside
from .quantized import Quantization

__all__ = [
    "COMPONENT_FOLDERS",
    "EXPORTABLE_TYPES",
    "Adapter",
    "ExportReport",
    "FormatName",
    "Layer",
    "MergeReport",
    "MixReport",
    "Quantization",
    "component_folders",
    "export_adapter",
    "import_adapter",
    "load_adapter",
    "merge_adapter",
    "mix_adapters",
    "norm",
    "projector_beside",
    "read_ranks",
]
