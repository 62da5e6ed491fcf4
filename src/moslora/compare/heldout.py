"""Training questions kept aside, on which each arm's learning rate is chosen. The tests are never used for that."""

import re
from pathlib import Path

from .. import runs
from ..errors import DataError
from ..tasks.commonsense.data import Item
from ..tasks.commonsense.score import offered_words

LARGEST = 500  # held out at most, unless the user says otherwise
SHARE = 0.1


def hold_out(items: list[Item], folder: Path, *, size: int | None, seed: int) -> int:
    """Write FOLDER/train.json and FOLDER/validation/<format>/test.json.

    Questions are grouped by the answers they offer, so that each group is scored like a benchmark. A question that
    occurs several times goes to one side with all its copies.

    Args:
        items: of all training files.
        folder: for the split; what an earlier call left there is overwritten.
        size: questions held out; 10 % but at most 500 if None. Only items with an `answer` can be.
        seed: of the draw.

    Returns:
        the number of questions held out: 0 if no item has an `answer`.

    Raises:
        DataError: nothing would be left to train on.
    """
    import random

    texts = list(dict.fromkeys(_question(item) for item in items if item.get("answer")))
    wanted = min(LARGEST, int(SHARE * len(items))) if size is None else size
    random.Random(runs.stream_seed(seed, "validation")).shuffle(texts)
    chosen = set(texts[:wanted])
    train = [item for item in items if _question(item) not in chosen]
    if not train:
        raise DataError(
            f"All {len(items)} training items would be held out (validation size {wanted}): give more data or a "
            "smaller --validation-size."
        )
    groups: dict[str, dict[str, Item]] = {}
    for item in items:
        if _question(item) in chosen and item.get("answer"):
            groups.setdefault(_format(item), {}).setdefault(_question(item), item)
    for name, questions in groups.items():
        runs.write_json(folder / "validation" / name / "test.json", list(questions.values()))
    runs.write_json(folder / "train.json", train)
    return sum(map(len, groups.values()))


def _question(item: Item) -> str:
    return item["instruction"] + "\n" + item["input"]


def _format(item: Item) -> str:
    """Short name of the answers on offer: `true-false`, `answer4` for answer1 to answer4, `options4` for any others."""
    words = offered_words(item)
    stems = {word.rstrip("0123456789") for word in words}
    if len(stems) == 1:
        return f"{re.sub(r'[^A-Za-z_-]+', '-', stems.pop())}{len(words)}"
    if stems in ({"true", "false"}, {"yes", "no"}):
        return "-".join(words)
    return f"options{len(words)}" if words else "questions"
