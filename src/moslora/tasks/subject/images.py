"""Photographs for training: read, turned upright, cut to a bucket, and what SDXL wants to know of the cut."""

import math
import random
from pathlib import Path
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from ... import runs
from ...errors import DataError
from ..image_files import read_image

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"}
LARGEST_RATIO = 4.0  # of the sides of a bucket


class Size(NamedTuple):
    """Pixels."""

    width: int
    height: int


class Picture(NamedTuple):
    """One photograph, ready to be encoded."""

    name: str
    image: Image.Image  # RGB, cut to its bucket
    original: Size  # of the upright photograph
    top: int  # rows cut off above, in pixels of the scaled photograph
    left: int  # columns cut off on the left

    def time_ids(self) -> Tensor:
        """SDXL's micro-conditioning (6,): original height and width, top, left, target height and width."""
        width, height = self.image.size
        return torch.tensor([self.original.height, self.original.width, self.top, self.left, height, width]).float()

    def pixels(self) -> Tensor:
        """(3, height, width), float32 in [-1, 1]."""
        width, height = self.image.size
        values = torch.frombuffer(bytearray(self.image.tobytes()), dtype=torch.uint8)
        return values.reshape(height, width, 3).permute(2, 0, 1).float() / 127.5 - 1


def find_pictures(folder: str | Path) -> list[Path]:
    """The image files of a folder, by name.

    Raises:
        DataError: no such folder, or none in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder. Expected one with the photographs: check the path.")
    found = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file())
    if not found:
        raise DataError(f"{folder} holds no picture: expected files that end in {', '.join(sorted(SUFFIXES))}.")
    return found


def folder_identity(folder: str | Path) -> dict[str, str]:
    """Name -> SHA-256 of the image files of a folder."""
    return {path.name: runs.file_sha256(path) for path in find_pictures(folder)}


def bucket_sizes(resolution: int, multiple: int) -> list[Size]:
    """The sizes that pictures are cut to, upright and lying, of at most resolution squared pixels each.

    Args:
        resolution: side of the square among them.
        multiple: that every side must be of, so that the UNet can halve it.
    """
    step = multiple * max(1, round(resolution / 16 / multiple))
    sizes = set()
    for width in range(step, int(resolution * math.sqrt(LARGEST_RATIO)) + 1, step):
        height = int(resolution * resolution / width) // step * step
        if height and max(width / height, height / width) <= LARGEST_RATIO:
            sizes |= {Size(width, height), Size(height, width)}
    return sorted(sizes)


def nearest_bucket(size: Size, buckets: list[Size]) -> Size:
    """The bucket whose aspect ratio is nearest; the one of more pixels among equals."""
    ratio = math.log(size.width / size.height)
    return min(buckets, key=lambda each: (abs(math.log(each.width / each.height) - ratio), -each.width * each.height))


def prepare(
    path: Path, *, resolution: int, multiple: int, buckets: bool, crop: Literal["center", "random"], seed: int
) -> Picture:
    """Read a picture, scale it so that it covers its bucket, and cut the rest off.

    Args:
        path: of the file.
        resolution: side of the square bucket, in pixels.
        multiple: that every side must be of.
        buckets: whether the aspect ratio chooses the bucket, or it is the square.
        crop: where to cut.
        seed: of the place of a random cut; it and the file's name decide.

    Raises:
        DataError: the file cannot be read.
    """
    image = read_image(path)
    original = Size(*image.size)
    square = Size(resolution // multiple * multiple, resolution // multiple * multiple)
    target = nearest_bucket(original, bucket_sizes(resolution, multiple)) if buckets else square
    scale = max(target.width / original.width, target.height / original.height)
    scaled = Size(max(target.width, round(original.width * scale)), max(target.height, round(original.height * scale)))
    spare = Size(scaled.width - target.width, scaled.height - target.height)
    if crop == "random":
        draw = random.Random(runs.stream_seed(seed, f"crop/{path.name}"))
        left, top = draw.randint(0, spare.width), draw.randint(0, spare.height)
    else:
        left, top = spare.width // 2, spare.height // 2
    image = image.resize(scaled, Image.Resampling.LANCZOS)
    return Picture(path.name, image.crop((left, top, left + target.width, top + target.height)), original, top, left)


def save_whole(image: Image.Image, path: Path) -> None:
    """Write a PNG so that a crash leaves none rather than half of one."""
    unfinished = path.with_suffix(".unfinished")
    image.save(unfinished, format="PNG")
    unfinished.replace(path)
