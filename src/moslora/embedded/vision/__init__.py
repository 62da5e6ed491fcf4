"""The small vision-language model that comes with the package, and questions about the scenes it knows.

A LLaVA of 2.1 million parameters, pre-trained by `python -m moslora.embedded.vision.build` on drawn scenes and true
statements about them. It lets every vision-language command of this package run without network, GPU or account.
"""

from pathlib import Path

from .questions import BENCHMARK, write_visual_questions

__all__ = ["BENCHMARK", "vision_model_folder", "write_visual_questions"]


def vision_model_folder() -> Path:
    """The model, its tokenizer and its image processor, as a folder that transformers can load."""
    return Path(__file__).parent / "model"
