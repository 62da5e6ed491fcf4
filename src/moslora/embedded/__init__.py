"""The small model that comes with the package, and questions about the world it knows.

0.7 million parameters, pretrained by `python -m moslora.embedded.build` on texts about 180 things. It lets every
command of this package run without network, GPU or account.
"""

from pathlib import Path

from .questions import BENCHMARKS, write_questions

__all__ = ["BENCHMARKS", "model_folder", "write_questions"]


def model_folder() -> Path:
    """The model and its tokenizer, as a folder that transformers can load."""
    return Path(__file__).parent / "model"
