"""Numbers as the texts of a table: percent, points, durations, sizes. Nothing that is missing becomes a zero."""

from collections.abc import Sequence

MISSING = "–"  # noqa: RUF001


def percent(share: float | None, digits: int = 1) -> str:
    """A share in [0, 1] in percent, without the sign."""
    return MISSING if share is None else _minus(f"{100 * share:.{digits}f}")


def percent_interval(interval: Sequence[float] | None) -> str:
    """An interval of shares in percent."""
    return MISSING if interval is None else f"{percent(interval[0])} to {percent(interval[1])}"


def points(difference: float | None) -> str:
    """A difference of shares in percentage points, with its sign."""
    if difference is None:
        return MISSING
    text = f"{100 * difference:+.1f}"
    return "0.0" if float(text) == 0 else _minus(text)


def points_interval(interval: Sequence[float] | None) -> str:
    """An interval of differences in percentage points."""
    return MISSING if interval is None else f"{points(interval[0])} to {points(interval[1])}"


def p_value(p: float | None) -> str:
    """A p-value to three digits."""
    if p is None:
        return MISSING
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def rate(value: float | None) -> str:
    """A learning rate as people write it, for example 3e-4."""
    if value is None:
        return MISSING
    digits, exponent = f"{value:e}".split("e")
    return f"{float(digits):g}e{int(exponent)}"


def fraction(value: float) -> str:
    """A share of the training data, for example "12.5 %"."""
    return f"{100 * value:g} %"


def duration(seconds: float | None) -> str:
    """Seconds in the unit that suits them."""
    if seconds is None:
        return MISSING
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def size(peak_bytes: float | None) -> str:
    """Bytes in the unit that suits them."""
    if peak_bytes is None:
        return MISSING
    return f"{peak_bytes / 2**30:.1f} GiB" if peak_bytes >= 2**30 else f"{peak_bytes / 2**20:.0f} MiB"


def count(number: float | None) -> str:
    """A whole number with its thousands apart."""
    return MISSING if number is None else f"{round(number):,}"


def _minus(text: str) -> str:
    return text.replace("-", "−")  # noqa: RUF001
