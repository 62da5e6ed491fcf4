"""The tiny Llama and its questions, as tests of the commonsense task use them."""

from tests.tasks.commonsense.conftest import moslora_command, questions, tiny_model

__all__ = ["moslora_command", "questions", "tiny_model"]
