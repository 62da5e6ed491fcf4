"""Hypothesis strategies: what a stranger could make of a valid file.

A case is one of the seeds with a few changes. Bytes are changed in every format; JSON and the header of safetensors are
also changed as values, so that most cases pass the parser and reach the code behind it.
"""

import copy
import json
import struct
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

WORDS = (
    "", " ", "\0", "\ud800", "None", "NaN", "-1", "1e999", "9" * 5000, "../../../etc/passwd", "C:\\x",
    "/dev/zero", "<script>alert(1)</script>", "{{7*7}}", "%s%n", "=1+1", "é" * 300, "a" * 70_000, "(a+)+$", "(",
    "[" * 3000, "\u202e", "<image>", "\r\n", "__class__", "lora_A.weight", "http://127.0.0.1:9/", "\t", '"',
)  # fmt: skip
VALUES = (
    None, True, False, 0, 1, -1, 2**31, 2**63, -(2**63) - 1, 10**400, 0.5, -0.0, 1e-320, 1e308,
    float("nan"), float("inf"), [], {}, [[]], [None], {"": None}, [1, "a", None], {"a": {"a": {"a": 1}}}, [0] * 1000,
)  # fmt: skip
BYTES = (
    b"",
    b"\0",
    b"\xff",
    b"\xff" * 8,
    b"\0" * 64,
    b"\n",
    b"\r",
    b"\t",
    b'"',
    b"'",
    b",",
    b"[" * 2000,
    b"{",
    b"\xef\xbb\xbf",
)


@st.composite
def damaged_bytes(draw: st.DrawFn, seeds: Sequence[bytes], most: int = 6) -> bytes:
    """A seed with parts flipped, put in, taken out, doubled, cut off or mixed with another seed."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, most))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.one_of(st.integers(0, 8), st.integers(0, 4096))))
        match draw(st.integers(0, 6)):
            case 0 if start < len(data):
                data = data[:start] + bytes([data[start] ^ 1 << draw(st.integers(0, 7))]) + data[start + 1 :]
            case 1:
                data = data[:start] + draw(st.one_of(st.binary(max_size=16), st.sampled_from(BYTES))) + data[start:]
            case 2:
                data = data[:start] + data[end:]
            case 3:
                data = data[:end] + data[start:]
            case 4:
                data = data[:start]
            case 5:
                data = data[:start] + draw(st.binary(min_size=end - start, max_size=end - start)) + data[end:]
            case 6:
                other = draw(st.sampled_from(seeds))
                data = data[:start] + other[min(start, len(other)) :]
    return data


def values() -> st.SearchStrategy[Any]:
    """Values that a writer of JSON did not expect there."""
    fixed = st.sampled_from(VALUES).map(copy.deepcopy)  # a later change may go into it
    return st.one_of(fixed, st.sampled_from(WORDS), st.text(max_size=20), st.integers(-5, 5))


def changed(draw: st.DrawFn, value: Any, most: int = 3) -> Any:
    """A copy of a JSON value with up to `most` changes in it."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(0, most))):
        place = value
        while isinstance(place, dict | list) and place:
            key = draw(st.sampled_from(sorted(place) if isinstance(place, dict) else range(len(place))))
            if not isinstance(place[key], dict | list) or not place[key] or draw(st.integers(0, 3)) == 0:
                break
            place = place[key]
        else:
            value = draw(values())
            continue
        match draw(st.integers(0, 4)):
            case 0:
                del place[key]
            case 1 if isinstance(place, dict):
                place[draw(st.one_of(st.sampled_from(WORDS), st.text(max_size=12)))] = copy.deepcopy(place[key])
            case 1:
                place.append(copy.deepcopy(place[key]))
            case _:
                place[key] = draw(values())
    return value


def to_json(value: Any) -> bytes:
    """JSON as Python writes it, with NaN, Infinity and lone surrogates where they were put in."""
    return json.dumps(value).encode("utf-8", "surrogatepass")


@st.composite
def damaged_json(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A JSON document with other values in it, or other bytes."""
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged_bytes(seeds))
    return to_json(changed(draw, json.loads(draw(st.sampled_from(seeds)))))


@st.composite
def damaged_lines(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """One JSON value a line, some of them changed."""
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged_bytes(seeds))
    lines = draw(st.sampled_from(seeds)).splitlines()
    return b"\n".join(to_json(changed(draw, json.loads(line), 1)) for line in lines)


@st.composite
def damaged_safetensors(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A safetensors file with another header, whose length is mostly still right, or with other bytes."""
    if draw(st.integers(0, 2)) == 0:
        return draw(damaged_bytes(seeds))
    data = draw(st.sampled_from(seeds))
    size = 8 + struct.unpack("<Q", data[:8])[0]
    header = to_json(changed(draw, json.loads(data[8:size])))
    said = len(header) if draw(st.integers(0, 5)) else draw(st.integers(0, 2**64 - 1))
    return struct.pack("<Q", said) + header + draw(damaged_bytes([data[size:]], 1))


@st.composite
def damaged_table(draw: st.DrawFn, seeds: Sequence[bytes]) -> bytes:
    """A table of tabs and lines with other cells, or other bytes."""
    if draw(st.integers(0, 3)) == 0:
        return draw(damaged_bytes(seeds))
    rows = [line.split(b"\t") for line in draw(st.sampled_from(seeds)).splitlines()]
    for _ in range(draw(st.integers(0, 3))):
        row = draw(st.sampled_from(rows))
        cell = draw(st.one_of(st.sampled_from(WORDS), st.text(max_size=20))).encode("utf-8", "surrogatepass")
        row[draw(st.integers(0, len(row) - 1))] = cell
    return b"\n".join(map(b"\t".join, rows)) + b"\n"
