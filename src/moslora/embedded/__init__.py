"""The small models that come with the package, and the questions about what they know.

`model_folder`: a language model of 4.1 million parameters, pretrained by `python -m moslora.embedded.build` on texts
drawn from tables, with eight benchmarks. `vision_model_folder`: a vision-language model (`moslora.embedded.vision`).
`diffusion_model_folder`: a model that draws (`moslora.embedded.diffusion`). They let every command of this package run
without network, GPU or account.
"""

from pathlib import Path

from .diffusion import diffusion_model_folder
from .questions import BENCHMARKS, write_questions
from .vision import vision_model_folder, write_visual_questions

__all__ = [
    "BENCHMARKS",
    "diffusion_model_folder",
    "model_folder",
    "vision_model_folder",
    "write_questions",
    "write_visual_questions",
]


def model_folder() -> Path:
    """The model and its tokenizer, as a folder that transformers can load."""
    return Path(__file__).parent / "model"
