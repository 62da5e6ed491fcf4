"""Images of a benchmark: base64 text -> picture, with a limit on what is unpacked."""

import base64
import binascii
import io
from typing import TYPE_CHECKING

from ....errors import DataError

if TYPE_CHECKING:
    from PIL import Image

MOST_PIXELS = 100_000_000  # 300 MB unpacked; the largest image of the nine benchmarks is far below
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def decode_image(text: str, where: str) -> "Image.Image":
    """The picture in RGB; of an animation, its first frame.

    Args:
        text: base64 of an image file.
        where: what to call it in an error, for example "MMVet, row 3".

    Raises:
        DataError: it is no image, or one that unpacks to more than `MOST_PIXELS`.
    """
    from PIL import Image

    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where}: the image is not base64 ({error}). Several images a row cannot be used.") from error
    try:
        with Image.open(io.BytesIO(content), formats=FORMATS) as image:
            width, height = image.size  # read from the header; nothing is unpacked yet
            if width * height > MOST_PIXELS:
                raise DataError(
                    f"{where}: the image unpacks to {width} x {height} pixels, more than {MOST_PIXELS:,}. "
                    "Make it smaller, or take the row out."
                )
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{where}: cannot read the image: {error}. Expected one of {', '.join(FORMATS)}.") from error
