"""From an image file to an upright RGB picture, whatever the file is, and what can be wrong with it."""

import io
import warnings
from pathlib import Path
from typing import NamedTuple

import numpy
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import DataError

# Others that Pillow knows run programs (EPS), or are no pictures of a data set.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 89_478_485  # as Pillow's own limit: a quarter of a GiB of RGB

# Kinds that cannot be used.
BROKEN = {
    "missing": "there is no such file",
    "not-an-image": "the file is not an image of a known kind",
    "truncated": "the file ends early or is damaged",
    "huge": "there are more pixels than allowed",
}
# Kinds that can, once they are RGB.
CONVERTED = {
    "cmyk": "CMYK, as for print",
    "palette": "colours from a palette",
    "alpha": "transparent parts, which are shown on white",
    "grey": "grey values alone",
    "high-depth": "more than 8 bits a colour",
    "animated": "several frames, of which the first is taken",
    "rotated": "turned by its EXIF entry",
}


class Picture(NamedTuple):
    """An RGB image, upright, and which of `CONVERTED` its file was."""

    image: Image.Image
    kinds: tuple[str, ...]


class BrokenImage(DataError):
    """An image that cannot be used; `kind` is one of `BROKEN`."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind


def read_picture(source: str | Path | bytes, max_pixels: int = MAX_PIXELS) -> Picture:
    """The first frame of an image as upright RGB.

    Args:
        source: path or content of the file.
        max_pixels: an image with more is not decoded.

    Raises:
        BrokenImage: missing, truncated, huge, or no image at all.
    """
    name = "the image" if isinstance(source, bytes) else str(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own limit and remarks on metadata; ours is checked below
            image = Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
            if image.width * image.height > max_pixels:
                raise _broken("huge", name, f"{image.width} x {image.height}, allowed are {max_pixels:,}")
            kinds = _kinds(image)
            image.load()
            return Picture(_rgb(ImageOps.exif_transpose(image)), kinds)
    except BrokenImage:
        raise
    except FileNotFoundError:
        raise _broken("missing", name) from None
    except Image.DecompressionBombError as error:
        raise _broken("huge", name, str(error)) from error
    except UnidentifiedImageError:
        raise _broken("not-an-image", name) from None
    except Exception as error:  # Pillow's decoders raise errors of many kinds
        raise _broken("truncated", name, str(error)) from error


def read_image(path: Path) -> Image.Image:
    """The image of `read_picture` alone, for folders in which every picture is wanted.

    Raises:
        DataError: the file is no image, or is damaged.
    """
    try:
        return read_picture(path).image
    except BrokenImage as error:
        raise DataError(f"Cannot read the picture {error} Replace it or remove it from the folder.") from error


def _kinds(image: Image.Image) -> tuple[str, ...]:
    found = {
        "cmyk": image.mode == "CMYK",
        "palette": image.mode in ("P", "PA"),
        "alpha": image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info,
        "grey": image.mode in ("1", "L", "LA"),
        "high-depth": image.mode.startswith(("I", "F")),
        "animated": getattr(image, "n_frames", 1) > 1,
        "rotated": image.getexif().get(0x0112, 1) not in (0, 1),
    }
    return tuple(kind for kind, is_it in found.items() if is_it)


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith(("I", "F")):
        image = _to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Values scaled to [0, 255]: Pillow would cut off those above. 16 bits are full scale unless there are more."""
    values = numpy.asarray(image, dtype="float64")
    top = 255 if values.max() <= 255 else max(65535, values.max())
    return Image.fromarray((values.clip(0) * (255 / top)).round().astype("uint8"))


def _broken(kind: str, name: str, detail: str = "") -> BrokenImage:
    return BrokenImage(kind, f"{name}: {BROKEN[kind]}{f' ({detail})' if detail else ''}.")
