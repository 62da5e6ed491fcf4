"""One colour and one marker a method, the same in every figure of every report.

Okabe and Ito's colours, which the colour-blind can tell apart, each dark enough for white paper and light enough for a
dark screen (contrast 3 or more on both). More methods than colours: the marker tells those of one colour apart, and no
figure says by colour alone which method it shows.
"""

import hashlib
from typing import NamedTuple

GREY, BLUE, RED, GREEN, PINK, AMBER = "#767676", "#0072b2", "#d55e00", "#009070", "#c2609f", "#a97900"
COLOURS = (BLUE, RED, GREEN, PINK, AMBER)
MARKERS = ("o", "s", "^", "D", "v", "P")


class Look(NamedTuple):
    """How a method is drawn."""

    colour: str  # as #rrggbb
    marker: str  # of matplotlib


_LOOKS = {
    "lora": Look(GREY, "o"),
    "moslora": Look(RED, "o"),
    "ts-mixing": Look(PINK, "o"),
    "dora": Look(BLUE, "o"),
    "adalora": Look(GREEN, "o"),
    "full": Look(AMBER, "o"),
    "lokr": Look(BLUE, "s"),
    "loha": Look(GREEN, "s"),
    "flora": Look(PINK, "s"),
    "moslora-orthogonal": Look(RED, "s"),
    "lora-plus": Look(AMBER, "s"),
    "lora-scaled": Look(GREY, "s"),
    "rslora": Look(BLUE, "^"),
    "pissa": Look(GREEN, "^"),
    "moslora-folded": Look(PINK, "^"),
    "moslora-frozen": Look(AMBER, "^"),
    "moslora-normal": Look(RED, "^"),
    "moslora-identity": Look(GREY, "^"),
    "moslora-zeros": Look(BLUE, "D"),
    "moslora-gradient": Look(GREEN, "D"),
    "moslora-dora": Look(RED, "D"),
}


def look(label: str) -> Look:
    """Colour and marker of a method; of one that is not known, such as a file's, always the same by its name.

    Args:
        label: the method; what follows it in parentheses says which of its runs, and does not count.
    """
    method = label.partition(" (")[0]
    if method in _LOOKS:
        return _LOOKS[method]
    number = hashlib.sha256(method.encode()).digest()[0]
    return Look(COLOURS[number % len(COLOURS)], MARKERS[4 + number % 2])
