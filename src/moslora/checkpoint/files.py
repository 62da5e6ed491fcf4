"""Files of adapters, read with errors that say what is wrong, and written all or nothing."""

import contextlib
import json
import math
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from ..errors import CheckpointError, ConfigError


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object.

    Raises:
        CheckpointError: the file is not there, is cut off, or holds something else.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Expected a JSON file there: check the path.")
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CheckpointError(
            f"{path}: found {path.stat().st_size} bytes that are not JSON ({error}). Expected a complete JSON object; "
            "the file is damaged or half written: copy or save it again."
        ) from None
    if not isinstance(value, dict):
        raise CheckpointError(f"{path}: found a JSON {type(value).__name__}, expected an object: check the path.")
    return value


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a file, on the CPU, and the text metadata of its header.

    Raises:
        CheckpointError: the file is not there, is truncated, or is not safetensors.
    """
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Expected the weights there: the adapter is incomplete.")
    try:
        with safe_open(path, "pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{path}: found {path.stat().st_size} bytes that are no safetensors file ({error}). Expected as many as "
            "its header gives: the file is truncated, half written or foreign. Copy or save it again."
        ) from None


def read_pickle(path: Path) -> dict[str, Tensor]:
    """The state dict of a `.bin` file. Only tensors and plain containers are unpickled, no code is run.

    Raises:
        CheckpointError: the file cannot be read that way.
    """
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        reason = str(error).partition("\n")[0][:200]
        raise CheckpointError(
            f"{path}: found a file that is not a plain state dict, truncated or with code inside ({reason}). "
            "Expected tensors only: get the adapter as safetensors."
        ) from None
    if not isinstance(value, dict) or not all(isinstance(tensor, Tensor) for tensor in value.values()):
        raise CheckpointError(f"{path}: found a {type(value).__name__}, expected a dict of tensors only.")
    return value


def write_safetensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors, which may share storage or be strided."""
    own = {key: tensor.detach().cpu().clone(memory_format=torch.contiguous_format) for key, tensor in tensors.items()}
    save_file(own, path, metadata={"format": "pt", **(metadata or {})})


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON object, its keys sorted."""
    path.write_text(json.dumps(value, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def check_finite(path: Path, key: str, tensor: Tensor) -> None:
    """Raise CheckpointError if the tensor holds NaN or infinity, or is no floating tensor."""
    if not tensor.is_floating_point():
        raise CheckpointError(f"{path}: {key}: found dtype {tensor.dtype}, expected a floating dtype.")
    bad = tensor.numel() - int(torch.isfinite(tensor).sum())
    if bad:
        raise CheckpointError(
            f"{path}: {key}: found {bad} of {math.prod(tensor.shape)} values that are NaN or infinite, expected finite "
            "weights. The training diverged: take an earlier checkpoint."
        )


@contextlib.contextmanager
def new_path(out: Path) -> Iterator[Path]:
    """A temporary sibling for a file or folder, which becomes `out` when the block ends and vanishes if it fails.

    Raises:
        ConfigError: `out` exists.
    """
    refuse_existing(out)
    new_parents = [folder for folder in out.parents if not folder.exists()]
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.parent / f".{out.name}.{uuid.uuid4().hex[:8]}.partial"
    try:
        yield partial
        refuse_existing(out)
        partial.rename(out)
    except BaseException:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)
        for folder in new_parents:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def refuse_existing(out: Path) -> None:
    """Raise ConfigError if there is something at `out`."""
    if out.exists():
        raise ConfigError(f"{out} exists already, and nothing is overwritten: choose another path or remove it.")
