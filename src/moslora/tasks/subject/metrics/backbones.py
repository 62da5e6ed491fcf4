"""The models that look at pictures: any of transformers', from a folder or the hub, with PIL's image processing."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers

from .... import runs
from ....errors import CheckpointError, ConfigError, UnsupportedError
from ...image_files import read_image

# Settings of an image processor that change its result.
PROCESSING = ("do_", "image_processor_type", "size", "crop_size", "resample", "image_mean", "image_std")


class Identity(NamedTuple):
    """Which model a number belongs to."""

    name: str  # folder or hub id, as it was given
    sha256: str | None  # of all files of a folder
    commit: str | None  # of the hub

    @property
    def short(self) -> str:
        """For names of files."""
        return (self.sha256 or self.commit or "unknown")[:12]


def identify(name: str, flag: str) -> Identity:
    """Hash of a model's folder, or its commit on the hub.

    Args:
        name: folder or hub id.
        flag: of the command line that gave it, for the message.

    Raises:
        ConfigError: there is no such model.
    """
    if Path(name).is_dir():
        return Identity(name, runs.fingerprint(Path(name))["sha256"], None)
    try:
        config = transformers.AutoConfig.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ConfigError(_unreadable(name, flag, error)) from None
    return Identity(name, None, getattr(config, "_commit_hash", None))


class Backbone:
    """A model that turns pictures into vectors: its class token, or the projection into the space that texts share.

    Attributes:
        processing: the settings by which pictures are resized, cut and normalised.
    """

    def __init__(self, name: str, flag: str) -> None:
        """Load the image processing; the model itself is loaded when it is needed.

        Args:
            name: folder or hub id.
            flag: of the command line that gave it, for messages.

        Raises:
            ConfigError: it cannot be loaded.
        """
        self.name, self.flag = name, flag
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            # The other backend rounds differently and needs torchvision.
            self._processor: Any = transformers.AutoImageProcessor.from_pretrained(name, backend="pil")
        except (OSError, ValueError, ImportError) as error:
            raise ConfigError(_unreadable(name, flag, error)) from None
        settings = self._processor.to_dict().items()
        self.processing = {key: value for key, value in settings if key.startswith(PROCESSING) and value is not None}

    @functools.cached_property
    def _model(self) -> Any:
        """The model, whole.

        Raises:
            ConfigError: it cannot be loaded.
            CheckpointError: weights are missing.
        """
        try:
            with _quiet():  # what is missing is looked at below
                model, info = transformers.AutoModel.from_pretrained(
                    self.name, dtype=torch.float32, output_loading_info=True
                )
        except (OSError, ValueError) as error:
            raise ConfigError(_unreadable(self.name, self.flag, error)) from None
        lost = sorted(key for key in info["missing_keys"] if not key.startswith("pooler."))
        if lost:
            raise CheckpointError(
                f"{self.name}: found no weights for {', '.join(lost[:3])} ({len(lost)} in all), expected a complete "
                "model: its numbers would be those of random weights."
            )
        return model.to(self.device).eval()

    @torch.inference_mode()
    def embed(self, paths: Sequence[Path]) -> np.ndarray:
        """(pictures, d) of float32.

        Raises:
            UnsupportedError: the model has neither a projection nor a class token.
        """
        images = [read_image(path) for path in paths]
        pixels = self._processor(images=images, return_tensors="pt")["pixel_values"].to(self.device)
        if hasattr(self._model, "get_image_features"):
            found = _tensor(self._model.get_image_features(pixel_values=pixels))
        else:
            output = self._model(pixel_values=pixels)
            hidden = getattr(output, "last_hidden_state", None)
            if hidden is None or hidden.ndim != 3:
                raise UnsupportedError(f"{self.name}: {type(self._model).__name__} has no class token to compare.")
            found = hidden[:, 0]
        return found.float().cpu().numpy()

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> np.ndarray:
        """(texts, d) of float32; texts beyond the model's length are cut.

        Raises:
            UnsupportedError: the model knows no texts.
        """
        if not hasattr(self._model, "get_text_features"):
            raise UnsupportedError(
                f"{self.name}: {type(self._model).__name__} knows no texts, so there is no CLIP-T with it: leave "
                "clip-t out of --metrics, or name a CLIP with --clip."
            )
        tokenizer = transformers.AutoTokenizer.from_pretrained(self.name)
        longest = self._model.config.text_config.max_position_embeddings
        tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=longest, return_tensors="pt")
        return _tensor(self._model.get_text_features(**tokens.to(self.device))).float().cpu().numpy()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No bars and warnings of transformers."""
    log = transformers.logging
    verbosity, bar = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(verbosity)
        if bar:
            log.enable_progress_bar()


def _tensor(output: Any) -> torch.Tensor:
    return output if isinstance(output, torch.Tensor) else output.pooler_output


def _unreadable(name: str, flag: str, error: Exception) -> str:
    reason = str(error).strip().partition("\n")[0]
    return (
        f"{name}: cannot be loaded ({reason}). Give the folder of a model with --{flag}, or leave its metric out: see "
        "--metrics."
    )
