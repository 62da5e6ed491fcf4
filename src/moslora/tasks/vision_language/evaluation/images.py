"""Images of a benchmark: base64 text -> picture, with a limit on what is unpacked."""

import base64
import binascii
from typing import TYPE_CHECKING

from ....errors import DataError
from ...image_files import FORMATS, MAX_PIXELS, BrokenImage, read_picture

if TYPE_CHECKING:
    from PIL import Image


def decode_image(text: str, where: str, max_pixels: int | None = None) -> "Image.Image":
    """The picture as the training data's are read: upright, in RGB, of an animation the first frame.

    Args:
        text: base64 of an image file.
        where: what to call it in an error, for example "MMVet, row 3".
        max_pixels: an image with more is taken for a bomb and not unpacked; that of training unless given.

    Raises:
        DataError: it is no image that can be used.
    """
    try:
        content = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise DataError(f"{where}: the image is not base64 ({error}). Several images a row cannot be used.") from error
    try:
        return read_picture(content, max_pixels or MAX_PIXELS).image
    except BrokenImage as error:
        raise DataError(f"{where}: the image cannot be used: {error} Expected one of {', '.join(FORMATS)}.") from error
