"""Contact sheets: pictures in a grid with their prompts, below the photographs of the subject."""

import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from PIL import Image, ImageDraw, ImageFont

MARGIN, LINE = 8, 18  # pixels
FONT_SIZE = 14
INK, FAINT = "#111111", "#666666"


class Row(NamedTuple):
    """One line of the grid."""

    prompt: str
    images: list[Image.Image | None]  # a cell may be empty


def draw_sheet(
    titles: Sequence[str], rows: Sequence[Row], references: Sequence[Image.Image] = (), *, cell: int = 256
) -> Image.Image:
    """The grid as one picture.

    Args:
        titles: of the columns.
        rows: each with as many images as there are titles.
        references: photographs of the subject, in a line on top.
        cell: side of a cell in pixels; pictures are made to fit.
    """
    prompt_width = max(220, cell)
    width = MARGIN + prompt_width + len(titles) * (cell + MARGIN) + MARGIN
    small = min(cell, (width - prompt_width - 2 * MARGIN) // max(1, len(references)) - MARGIN) if references else 0
    top = MARGIN + (small + MARGIN if references else 0)
    height = top + LINE + MARGIN + len(rows) * (cell + MARGIN)
    sheet = Image.new("RGB", (width, height), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(FONT_SIZE)
    left = MARGIN + prompt_width
    if references:
        pen.text((MARGIN, MARGIN), "photographs", fill=FAINT, font=font)
        for number, reference in enumerate(references):
            _paste(sheet, reference, (left + number * (small + MARGIN), MARGIN), small)
    for number, title in enumerate(titles):
        pen.text((left + number * (cell + MARGIN), top), title, fill=INK, font=font)
    letters = int(prompt_width / (FONT_SIZE * 0.55))
    for number, row in enumerate(rows):
        y = top + LINE + MARGIN + number * (cell + MARGIN)
        text = "\n".join(textwrap.wrap(row.prompt, letters, max_lines=max(1, cell // LINE), placeholder=" ..."))
        pen.multiline_text((MARGIN, y), text, fill=INK, font=font)
        for column, image in enumerate(row.images):
            if image is not None:
                _paste(sheet, image, (left + column * (cell + MARGIN), y), cell)
    return sheet


def _paste(sheet: Image.Image, image: Image.Image, place: tuple[int, int], side: int) -> None:
    """Put an image into a square cell, whole and in the middle; small pictures are enlarged."""
    scale = side / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    method = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    fitted = image.convert("RGB").resize(size, method)
    sheet.paste(fitted, (place[0] + (side - size[0]) // 2, place[1] + (side - size[1]) // 2))
