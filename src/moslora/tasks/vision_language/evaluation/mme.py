"""MME: two yes-or-no questions an image. Pure Python.

A subtask scores its accuracy over questions plus its accuracy+ over images, of which both questions must be right, each
in percent: 200 at most. Ten subtasks make perception (2000), four make cognition (800); the paper divides their sum by
28 to come to 100.

Source: Fu et al., MME, arXiv:2306.13394.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from ....errors import DataError
from .intervals import BOOTSTRAP, bootstrap_interval, share

PERCEPTION = (
    "existence",
    "count",
    "position",
    "color",
    "posters",
    "celebrity",
    "scene",
    "landmark",
    "artwork",
    "OCR",
)
COGNITION = ("commonsense_reasoning", "numerical_calculation", "text_translation", "code_reasoning")
CHANCE = (1 / 2 + 1 / 4) / 2  # scaled score of one who throws a coin


def image_of(row: Mapping[str, Any]) -> str:
    """What the two questions about one image share."""
    return f"{row.get('category', '')}/{row.get('image_path') or row['image_id']}"


def check_pairs(rows: Sequence[Mapping[str, Any]]) -> None:
    """Make sure that MME is whole: its fourteen subtasks, and two questions an image.

    Raises:
        DataError: it is not.
    """
    subtasks = {row.get("category", "") for row in rows}
    if unknown := sorted(subtasks ^ {*PERCEPTION, *COGNITION}):
        raise DataError(f"MME has fourteen subtasks; missing or unexpected here: {', '.join(unknown)}.")
    for image, group in _by_image(rows).items():
        if len(group) != 2:
            raise DataError(f"MME asks two questions about an image; {image} has {len(group)}.")


def score_yes_no(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Score of rows with `answer`, `prediction` (Yes, No or None) and, if there are subtasks, `category`.

    Returns:
        `score`: mean of accuracy and accuracy+ over the subtasks, in [0, 1], which for MME is its total over 2800;
        `parts`: of every subtask accuracy, accuracy+ and points (200 at most); for MME's subtasks also `perception`
        and `cognition`, points of those that are there, and the most there could be.
    """
    subtasks: dict[str, list[list[bool]]] = {}
    for group in _by_image(rows).values():
        right = [row["prediction"] is not None and row["prediction"].lower() == row["answer"].lower() for row in group]
        subtasks.setdefault(group[0].get("category") or "all", []).append(right)
    parts = {name: _subtask(images) for name, images in subtasks.items()}
    samples = [list(range(len(images))) for images in subtasks.values()]
    worth = [[(sum(right), len(right), all(right)) for right in images] for images in subtasks.values()]
    found = {
        "score": sum(part["points"] for part in parts.values()) / 200 / len(parts),
        "interval": bootstrap_interval(samples, _resampled(worth)),
        "interval_method": f"{BOOTSTRAP}, images of each subtask",
        "n": len(rows),
        "correct": sum(part["accuracy"]["correct"] for part in parts.values()),
        "parts": {"subtasks": parts},
    }
    for name, members in (("perception", PERCEPTION), ("cognition", COGNITION)):
        if there := [parts[each]["points"] for each in members if each in parts]:
            found[name] = {"points": sum(there), "most": 200 * len(there)}
    return found


def _by_image(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(image_of(row), []).append(row)
    return groups


def _subtask(images: Sequence[Sequence[bool]]) -> dict[str, Any]:
    answers = [each for right in images for each in right]
    accuracy, plus = share(sum(answers), len(answers)), share(sum(map(all, images)), len(images))
    return {"accuracy": accuracy, "accuracy_plus": plus, "points": 100 * (accuracy["score"] + plus["score"])}


def _resampled(worth: Sequence[Sequence[tuple[int, int, bool]]]) -> Any:
    """The scaled score as a function of drawn images, one array of their numbers a subtask."""
    import numpy

    tables = [numpy.asarray(each, dtype=float) for each in worth]

    def scaled(*drawn: Any, axis: int = -1) -> Any:
        total = 0.0
        for table, numbers in zip(tables, drawn, strict=True):
            right, asked, both = (table[numbers.astype(int), column] for column in range(3))
            total = total + right.sum(axis) / asked.sum(axis) + both.mean(axis)
        return total / (2 * len(tables))

    return scaled
