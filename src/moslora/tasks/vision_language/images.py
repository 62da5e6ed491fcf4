"""From an RGB picture to what a vision tower is shown."""

from collections.abc import Sequence
from typing import Any

from PIL import Image


def to_square(image: Image.Image, colour: Sequence[int]) -> Image.Image:
    """The image in the middle of the smallest square that holds it.

    Args:
        image: RGB.
        colour: of the new parts, three values in [0, 255].
    """
    side = max(image.size)
    if image.size == (side, side):
        return image
    square = Image.new("RGB", (side, side), tuple(colour))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square


def pixels(image: Image.Image, processor: Any, *, pad_to_square: bool) -> Any:
    """What the vision tower is shown: (3, height, width), float32.

    Args:
        image: RGB.
        processor: of images and texts, or of images alone.
        pad_to_square: with the processor's mean colour, as LLaVA 1.5 does.
    """
    image_processor = getattr(processor, "image_processor", processor)
    if pad_to_square:
        image = to_square(image, mean_colour(image_processor))
    return image_processor(images=image, return_tensors="pt")["pixel_values"][0]


def mean_colour(image_processor: Any) -> tuple[int, ...]:
    """The colour that becomes 0 when pixels are normalised."""
    return tuple(int(255 * mean) for mean in image_processor.image_mean)
