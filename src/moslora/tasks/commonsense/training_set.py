"""The training samples of a run: read from all sources, compared with the tests, and described."""

import warnings
from pathlib import Path
from typing import Any, NamedTuple

from ...errors import ConfigError, MoSLoRAWarning
from .data import Item, items_sha256, parse_columns, read_items, source_sha256
from .overlap import find_duplicates, find_overlap, read_tests


class TrainingSet(NamedTuple):
    """Samples, and what is known of them."""

    items: list[Item]
    facts: dict[str, Any]  # the content of RUN/data.json
    inputs: dict[str, dict[str, str]]  # source or benchmark -> SHA-256, for the record of a run


def load_training_set(
    sources: tuple[str, ...],
    *,
    columns: tuple[str, ...] = (),
    expected_samples: int = 0,
    overlap_with: str = "",
    drop_overlap: bool = False,
) -> TrainingSet:
    """Samples of all sources, in their order.

    Args:
        sources: see `read_items`.
        columns: see `parse_columns`.
        expected_samples: a warning is given if there are more or fewer; 0 expects nothing.
        overlap_with: folder of the tests; empty to compare with none.
        drop_overlap: leave out the samples whose question is in a test, as well as counting them.

    Returns:
        facts: `sources` (source, samples, sha256), the numbers of `find_duplicates` (before anything is left out),
        `overlap`, the rows of `find_overlap`, `overlapping`, the samples concerned, and `overlap_dropped`.

    Raises:
        ConfigError: no source, or columns that cannot be used.
        DataError: a source or test that cannot be used.
    """
    if not sources:
        raise ConfigError("No training data: give files with --data.")
    names = parse_columns(columns)
    parts = [read_items(source, columns=names) for source in sources]
    hashes = {source: source_sha256(source, part) for source, part in zip(sources, parts, strict=True)}
    items = [item for part in parts for item in part]
    if expected_samples and len(items) != expected_samples:
        warnings.warn(
            f"There are {len(items):,} training samples, but the setting expects {expected_samples:,}: this is not its "
            "data. Results are not to be compared with published ones. --expected-samples 0 says that this is meant.",
            MoSLoRAWarning,
            stacklevel=2,
        )
    tests = read_tests(Path(overlap_with)) if overlap_with else {}
    overlap = find_overlap(items, tests)
    facts = {
        "sources": [
            {"source": source, "samples": len(part), "sha256": hashes[source]}
            for source, part in zip(sources, parts, strict=True)
        ],
        **find_duplicates(items),
        "overlap": overlap.rows,
        "overlapping": len(overlap.numbers),
        "overlap_dropped": len(overlap.numbers) if drop_overlap else 0,
    }
    if drop_overlap:
        items = [item for number, item in enumerate(items) if number not in overlap.numbers]
    inputs = {"data": hashes}
    if tests:
        inputs["tests"] = {name: items_sha256(part) for name, part in tests.items()}
    return TrainingSet(items, facts, inputs)
