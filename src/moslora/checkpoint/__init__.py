"""Adapter files: read with errors that say what is wrong, exported to plain LoRA, imported, merged."""

from .export import ExportReport, export_adapter
from .layers import Adapter, Layer
from .load import load_adapter

__all__ = ["Adapter", "ExportReport", "Layer", "export_adapter", "load_adapter"]
