"""Weights of a model folder, however many files they are in: read tensor by tensor, written tensor by tensor.

Neither needs more memory than one tensor, so a model of any size can be merged or put together on a small machine.
"""

import json
import re
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ..errors import CheckpointError
from .files import read_json, read_pickle, write_json

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLE, PICKLE_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
SHARD_BYTES = 5 * 10**9  # as transformers cuts them
_NAME = re.compile(r"[\w.-]{1,200}\.(safetensors|bin)", re.ASCII)  # of a file beside the index

# The names that safetensors has for dtypes.
DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "BF16": torch.bfloat16,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "U8": torch.uint8,
    "I8": torch.int8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Place:
    """Where a tensor lies.

    Attributes:
        file: safetensors.
        dtype: of the tensor.
        shape: of the tensor.
        start: first byte of its values in the file.
    """

    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    start: int


@dataclass(frozen=True)
class Weight:
    """A tensor that is about to be written: what it is called and looks like, and how to get it.

    Attributes:
        key: in the file.
        shape: of the tensor.
        load: returns the tensor, of that shape; called once, when its turn comes.
    """

    key: str
    shape: tuple[int, ...]
    load: Callable[[], Tensor]


class Weights:
    """The tensors of a folder of safetensors files, by key; no tensor stays in memory.

    Args:
        folder: with model.safetensors, or with shards and their index.

    Raises:
        CheckpointError: there are no such files, one of them is damaged, or the index names a tensor that is not there.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.places: dict[str, Place] = {}
        for file in weight_files(folder):
            self.places |= read_header(file)
        if (folder / INDEX).is_file():
            missing = weight_map(folder / INDEX).keys() - self.places.keys()
            if missing:
                raise CheckpointError(
                    f"{folder / INDEX}: names {len(missing)} tensors that are in none of its files, such as "
                    f"{min(missing)}: the folder is incomplete, copy it again."
                )

    def load(self, key: str) -> Tensor:
        """One tensor, on the CPU."""
        with safe_open(self.places[key].file, "pt") as file:
            return file.get_tensor(key)


class PickledWeights:
    """The same of pytorch_model.bin files, which have to be read whole, tensors only. Ask the user before."""

    def __init__(self, folder: Path) -> None:
        index = folder / PICKLE_INDEX
        names = sorted(set(weight_map(index).values())) if index.is_file() else [PICKLE]
        self.tensors: dict[str, Tensor] = {}
        for name in names:
            self.tensors |= read_pickle(folder / name)
        self.places = {
            key: Place(folder / PICKLE, tensor.dtype, tuple(tensor.shape), 0) for key, tensor in self.tensors.items()
        }

    def load(self, key: str) -> Tensor:
        """One tensor, on the CPU."""
        return self.tensors[key]


def weight_map(index: Path) -> dict[str, str]:
    """Key of a tensor -> name of its file, which lies beside the index.

    Raises:
        CheckpointError: the index is damaged, or names a file somewhere else.
    """
    found = read_json(index).get("weight_map")
    if not isinstance(found, dict) or not all(_NAME.fullmatch(str(name)) for name in found.values()):
        raise CheckpointError(
            f"{index}: weight_map: found {str(found)[:80]}, expected for each tensor the name of a file beside it. "
            "The file is damaged: copy it again."
        )
    return found


def weight_files(folder: Path) -> list[Path]:
    """The safetensors files of a model folder; none if it has no model.safetensors and no index of shards."""
    if (folder / INDEX).is_file():
        return [folder / name for name in sorted(set(weight_map(folder / INDEX).values()))]
    return [folder / SINGLE] if (folder / SINGLE).is_file() else []


def read_header(file: Path) -> dict[str, Place]:
    """Where the tensors of a safetensors file lie.

    Raises:
        CheckpointError: there is no such file, or it is damaged.
    """
    if not file.is_file():
        raise CheckpointError(f"{file}: no such file. Expected weights there: the folder is incomplete.")
    try:
        with safe_open(file, "pt"):  # checks the header against the size of the file
            pass
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(
            f"{file}: found {file.stat().st_size} bytes that are no safetensors file ({error}): copy it again."
        ) from None
    with file.open("rb") as stream:
        (length,) = struct.unpack("<Q", stream.read(8))
        header: dict[str, Any] = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    places = {}
    for key, entry in header.items():
        if entry["dtype"] not in DTYPES:
            raise CheckpointError(
                f"{file}: {key}: found dtype {entry['dtype']}, expected one of {', '.join(DTYPES)}. Weights that are "
                "quantised on the disk cannot be used: take the model they were made from."
            )
        start = 8 + length + entry["data_offsets"][0]
        places[key] = Place(file, DTYPES[entry["dtype"]], tuple(entry["shape"]), start)
    return places


def overwrite(place: Place, tensor: Tensor) -> None:
    """Put other values into a tensor of a file, in place.

    Args:
        place: of the tensor, in a file that may be changed.
        tensor: of the same shape and dtype.
    """
    assert (tuple(tensor.shape), tensor.dtype) == (place.shape, place.dtype)
    with place.file.open("r+b") as stream:
        stream.seek(place.start)
        stream.write(_bytes(tensor))


def write_weights(folder: Path, weights: Iterable[Weight], dtype: torch.dtype, shard_bytes: int = SHARD_BYTES) -> None:
    """Write model.safetensors, or shards and their index, with never more than one tensor in memory.

    Args:
        folder: an existing one.
        weights: in the order of the files.
        dtype: of everything that is written, a floating one.
        shard_bytes: largest size of a file; a larger tensor gets a file of its own.
    """
    shards: list[list[Weight]] = [[]]
    sizes = [0]
    for weight in weights:
        size = _bytes_of(weight, dtype)
        if shards[-1] and sizes[-1] + size > shard_bytes:
            shards.append([])
            sizes.append(0)
        shards[-1].append(weight)
        sizes[-1] += size
    names = [f"model-{number:05}-of-{len(shards):05}.safetensors" for number in range(1, len(shards) + 1)]
    names = [SINGLE] if len(shards) == 1 else names
    for name, shard in zip(names, shards, strict=True):
        _write_shard(folder / name, shard, dtype)
    if len(shards) > 1:
        weight_map = {weight.key: name for name, shard in zip(names, shards, strict=True) for weight in shard}
        write_json(folder / INDEX, {"metadata": {"total_size": sum(sizes)}, "weight_map": weight_map})


def _write_shard(file: Path, weights: list[Weight], dtype: torch.dtype) -> None:
    code = next(code for code, known in DTYPES.items() if known == dtype)
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    start = 0
    for weight in weights:
        end = start + _bytes_of(weight, dtype)
        header[weight.key] = {"dtype": code, "shape": list(weight.shape), "data_offsets": [start, end]}
        start = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)  # so that the values are aligned
    with file.open("wb") as stream:
        stream.write(struct.pack("<Q", len(text)) + text)
        for weight in weights:
            tensor = weight.load()
            assert tensor.shape == weight.shape, weight.key
            stream.write(_bytes(tensor.to(dtype)))


def _bytes_of(weight: Weight, dtype: torch.dtype) -> int:
    return torch.Size(weight.shape).numel() * dtype.itemsize


def _bytes(tensor: Tensor) -> Any:
    """The values as safetensors stores them, without a copy where the tensor is contiguous."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
