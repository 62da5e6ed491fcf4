"""Pictures that say nothing about where they come from: new names, new encoding, no metadata, one size a pair."""

import random
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from PIL.Image import Image

LONGEST_REFERENCE = 768  # pixels; photographs are shown small, and larger on demand
NOISE_GRAIN = 16  # pixels of the shown picture to one of the noise


class Stored(NamedTuple):
    """A picture of a study."""

    id: str  # random; name of the file without its ending
    width: int  # pixels
    height: int


def open_picture(path: Path, longest: int) -> "Image":
    """The pixels of a picture as RGB, turned upright, its longer side at most `longest` pixels.

    Raises:
        DataError: it cannot be decoded.
    """
    from PIL import Image

    from ...image_files import read_image

    picture = read_image(path)
    picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return picture


def alike(a: "Image", b: "Image") -> tuple["Image", "Image"]:
    """Both in one size, the smaller width and height of the two: scaled to cover it, and cut evenly at the edges."""
    from PIL import Image, ImageOps

    size = (min(a.width, b.width), min(a.height, b.height))
    fitted = [
        each if each.size == size else ImageOps.fit(each, size, method=Image.Resampling.LANCZOS) for each in (a, b)
    ]
    return fitted[0], fitted[1]


def noise(size: tuple[int, int], seed: int) -> "Image":
    """A picture of coloured noise, which nobody can take for a subject.

    Args:
        size: width and height, pixels.
        seed: of the noise.
    """
    from PIL import Image

    small = (max(1, size[0] // NOISE_GRAIN), max(1, size[1] // NOISE_GRAIN))
    pixels = random.Random(seed).randbytes(3 * small[0] * small[1])
    return Image.frombytes("RGB", small, pixels).resize(size, Image.Resampling.NEAREST)


def store(picture: "Image", folder: Path, quality: int | None) -> Stored:
    """Write the pixels, and nothing else, under a random name.

    Args:
        picture: RGB.
        folder: of the study's pictures.
        quality: of lossy WebP, 1 to 100; None keeps every pixel as it is.
    """
    from PIL import Image

    bare = Image.new("RGB", picture.size)
    bare.paste(picture)  # a new picture has no metadata to hand on
    name = secrets.token_hex(12)
    # For lossless files "quality" is how long to search: 20 makes them as small as 80, four times as fast.
    options = {"lossless": True, "method": 2, "quality": 20} if quality is None else {"quality": quality, "method": 4}
    bare.save(folder / f"{name}.webp", format="WEBP", **options)
    return Stored(name, *picture.size)
