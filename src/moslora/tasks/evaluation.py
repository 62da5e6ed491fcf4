"""What evaluations of several tasks share: the record of what was asked, with which settings."""

from pathlib import Path
from typing import Any

from .. import runs


def record_settings(folder: Path, settings: dict[str, Any], data: dict[str, Any]) -> None:
    """Write FOLDER/eval.json, or make sure that what is there agrees with it. More benchmarks may join later.

    Args:
        folder: of the evaluation.
        settings: that every answer in it has in common.
        data: benchmark -> what identifies it.

    Raises:
        RunError: the folder holds an evaluation with other settings or data.
    """
    path = folder / "eval.json"
    if path.exists():
        old = runs.read_json(path)
        data = old["data"] | data
        runs.refuse_differences(folder, {**old, "data": data | old["data"]}, {"settings": settings, "data": data})
    runs.write_json(path, {"settings": settings, "data": data})
