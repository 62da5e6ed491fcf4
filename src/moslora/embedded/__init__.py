"""The small model that comes with the package, and eight benchmarks about the world it knows.

4.1 million parameters, pretrained by `python -m moslora.embedded.build` on texts drawn from tables. It lets every
command of this package run without network, GPU or account.
"""

from pathlib import Path

from .diffusion import diffusion_model_folder
from .questions import BENCHMARKS, write_questions

__all__ = ["BENCHMARKS", "diffusion_model_folder", "model_folder", "write_questions"]


def model_folder() -> Path:
    """The model and its tokenizer, as a folder that transformers can load."""
    return Path(__file__).parent / "model"
