"""Images of a benchmark: base64 text -> picture, with a limit on what is unpacked."""

import base64
import binascii
import io
from typing import TYPE_CHECKING

from ....errors import DataError

if TYPE_CHECKING:
    from PIL import Image

# Kinds that are opened: others run programs (EPS), or are no pictures of a benchmark.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF")


def decode_image(text: str, where: str, max_pixels: int | None = None) -> "Image.Image":
    """The picture as the training data's are read: upright, in RGB, of an animation the first frame.

    Args:
        text: base64 of an image file.
        where: what to call it in an error, for example "MMVet, row 3".
        max_pixels: an image with more is taken for a bomb and not unpacked; that of training unless given.

    Raises:
        DataError: it is no image that can be used.
    """
    from PIL import Image, UnidentifiedImageError

    from ..images import MAX_PIXELS, read_picture

    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where}: the image is not base64 ({error}). Several images a row cannot be used.") from error
    try:
        Image.open(io.BytesIO(content), formats=FORMATS).close()
        return read_picture(content, max_pixels or MAX_PIXELS).image
    except UnidentifiedImageError:
        raise DataError(f"{where}: this is no image. Expected one of {', '.join(FORMATS)}.") from None
    except (DataError, OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise DataError(f"{where}: the image cannot be used: {error}") from error
