"""What is known of a base model before and after training, whatever kind of model it is."""

import contextlib
import functools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import runs
from ..errors import ConfigError, MoSLoRAError

if TYPE_CHECKING:
    import torch
    from transformers import PretrainedConfig, PreTrainedTokenizerBase

_TOKENIZER_FILES = (".json", ".jinja", ".model", ".txt", ".py")
EMBEDDED = "embedded"  # in the place of a folder or hub id: the small model of the task that comes with the package


def identity(model: str, place: str) -> dict[str, Any]:
    """What a run records of its base model: hashes of a local folder, the commit of a hub model.

    Args:
        model: as the user calls it.
        place: the folder or hub id that it stands for; the config of a hub model has been fetched.
    """
    from huggingface_hub import try_to_load_from_cache

    if Path(place).is_dir():
        return {"name": model, **runs.fingerprint(Path(place))}
    cached = try_to_load_from_cache(place, "config.json")  # .../snapshots/COMMIT/config.json
    return {"name": model, "commit": Path(cached).parent.name if isinstance(cached, str) else None}


@contextlib.contextmanager
def loading(what: str, place: str, expected: str = "") -> Iterator[None]:
    """Within the block, what transformers and the hub raise becomes a ConfigError, and a lost network is called that.

    Args:
        what: is loaded.
        place: folder or hub id.
        expected: a sentence that is added where the network is not to blame.
    """
    try:
        yield
    except MoSLoRAError:
        raise
    except (OSError, ValueError, ImportError) as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, ConnectionError) or type(cause).__module__.startswith("httpx"):
                raise ConfigError(
                    f"Cannot load {what} from {place!r}: no connection to the hub, or it was lost ({cause}). Files "
                    "that came whole are kept. Repeat the command later, or give the path of a folder instead."
                ) from error
            cause = cause.__cause__ or cause.__context__
        raise ConfigError(f"Cannot load {what} from {place!r}: {error}{expected}") from error


def load_config(place: str, trust_remote_code: bool = False) -> "PretrainedConfig":
    """The config alone of one of transformers' models.

    Raises:
        ConfigError: there is no such model, or it is of a kind transformers does not know.
    """
    from transformers import AutoConfig

    with loading("a model config", place, f" Expected a folder with config.json, a hub id, or {EMBEDDED}."):
        return AutoConfig.from_pretrained(place, trust_remote_code=trust_remote_code)


def load_tokenizer(place: str, trust_remote_code: bool = False) -> "PreTrainedTokenizerBase":
    """The tokenizer, with a padding token that is not the end-of-text token.

    It is read once for as long as its files stay the same: what `tokenizers` 0.23 remembers of the words it has split
    is not given back with the tokenizer, and would add up in a process that makes many runs.

    Raises:
        ConfigError: no tokenizer there, or one without an end-of-text token.
    """
    files = (path.stat() for path in sorted(Path(place).glob("*")) if path.suffix in _TOKENIZER_FILES)
    return _tokenizer(place, trust_remote_code, tuple((file.st_ino, file.st_mtime_ns, file.st_size) for file in files))


@functools.lru_cache(maxsize=8)
def _tokenizer(place: str, trust_remote_code: bool, files: tuple[tuple[int, ...], ...]) -> "PreTrainedTokenizerBase":
    """`load_tokenizer`; `files` tells one state of the folder from another."""
    from transformers import AutoTokenizer

    with loading("a tokenizer", place):
        tokenizer = AutoTokenizer.from_pretrained(place, trust_remote_code=trust_remote_code)
    if tokenizer.eos_token_id is None:
        raise ConfigError(f"The tokenizer of {place!r} has no end-of-text token: set eos_token in its config.")
    if tokenizer.pad_token_id is None or tokenizer.pad_token_id == tokenizer.eos_token_id:
        # Token 0 as the authors do. Padding is hidden from attention and loss, so which token it is does not matter,
        # as long as the end-of-text token keeps its meaning.
        tokenizer.pad_token_id = 0 if tokenizer.eos_token_id != 0 else 1
    return tokenizer


def trained_folder(run: Path, record: dict[str, Any]) -> Path:
    """What a run trained: RUN/adapter, or RUN/model where every parameter of the model was trained.

    Args:
        run: the run folder.
        record: its run.json.
    """
    return run / ("model" if record["config"]["method"] == "full" else "adapter")


def resolve_dtype(name: str) -> "torch.dtype":
    """The dtype of a `dtype` setting; `auto` is bfloat16 on a GPU that has it, else float32."""
    import torch

    if name == "auto":
        on_gpu = torch.cuda.is_available() and torch.cuda.is_bf16_supported()
        return torch.bfloat16 if on_gpu else torch.float32
    return getattr(torch, name)
