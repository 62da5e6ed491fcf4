"""Every image of a data set looked at once: decoded, counted by kind, and remembered by path, size and time."""

import os
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from ... import runs
from ...checkpoint.progress import track
from ..image_files import BrokenImage, read_picture

CHUNK = 512  # images between two writes of what is known


class ImageFacts(NamedTuple):
    """What is known of one image."""

    broken: str = ""  # a key of images.BROKEN, or nothing
    kinds: tuple[str, ...] = ()  # keys of images.CONVERTED
    message: str = ""


class ImageCheck:
    """Looks at images, in threads.

    Args:
        folder: in which the paths begin.
        known: file that keeps what was found; None to keep nothing.
        max_pixels: an image with more is not decoded.
    """

    def __init__(self, folder: Path, known: Path | None, max_pixels: int) -> None:
        self.folder, self.known, self.max_pixels = folder, known, max_pixels
        rows = runs.read_rows(known) if known else []
        self._rows = {row["image"]: row for row in rows}

    def look(self, names: Iterable[str]) -> dict[str, ImageFacts]:
        """What is known of each image; those that are new or have changed are decoded, with a bar on stderr."""
        names = sorted(set(names))
        stamps = {name: self._stamp(name) for name in names}
        new = [name for name in names if not self._is_known(name, stamps[name])]
        chunks = [new[start : start + CHUNK] for start in range(0, len(new), CHUNK)]
        shown = track(chunks, len(chunks), "check images") if runs.is_main_process() else chunks
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # Pillow lets go of the interpreter lock while it decodes
            for chunk in shown:
                found = list(pool.map(self._decode, chunk))
                rows = [
                    {"image": name, "stamp": stamps[name], **facts._asdict()}
                    for name, facts in zip(chunk, found, strict=True)
                ]
                self._rows |= {row["image"]: row for row in rows}
                if self.known and runs.is_main_process():
                    runs.append_rows(self.known, rows)
        return {name: self._facts(name) for name in names}

    def _decode(self, name: str) -> ImageFacts:
        try:
            return ImageFacts(kinds=read_picture(self.folder / name, self.max_pixels).kinds)
        except BrokenImage as error:
            return ImageFacts(broken=error.kind, message=str(error))

    def _stamp(self, name: str) -> list[int]:
        """Bytes and time of the file, and the limit it was held to; zeros if there is none."""
        try:
            status = (self.folder / name).stat()
        except OSError:
            return [0, 0, self.max_pixels]
        return [status.st_size, status.st_mtime_ns, self.max_pixels]

    def _is_known(self, name: str, stamp: list[int]) -> bool:
        row = self._rows.get(name)
        return row is not None and row["stamp"] == stamp

    def _facts(self, name: str) -> ImageFacts:
        row = self._rows[name]
        return ImageFacts(row["broken"], tuple(row["kinds"]), row["message"])


def count_kinds(found: dict[str, ImageFacts]) -> dict[str, dict[str, Any]]:
    """Images by what is wrong with them, and by what is converted."""
    facts = found.values()
    return {
        "broken": dict(Counter(each.broken for each in facts if each.broken)),
        "converted": dict(Counter(kind for each in facts if not each.broken for kind in each.kinds)),
    }
