"""Measure the pictures of runs, and compare the runs picture by picture.

    RUN/eval/scores.json      means with intervals, for the run and for each prompt; the models they were taken with
    RUN/eval/pictures.csv     one row a generated picture
    RUN/eval/pairs.csv        one row a generated picture and a photograph
    RUN/eval/lpips.csv        one row a pair of pictures of one prompt
    RUN/eval/embeddings/      vectors and distances by the hashes of files and model; a repetition computes what is new
    RUN/eval/comparison.json  of the first of several runs: differences from it

Pictures of the base model alone are measured into RUN/eval-base instead. Every batch reaches the disk before the next
begins.
"""

import csv
import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .... import runs
from ....errors import ConfigError
from ...image_files import read_image
from ...progress import progress_bar
from .backbones import Backbone, Identity, identify
from .compare import compare
from .config import METRICS, SubjectEvalConfig
from .lpips import Lpips
from .pictures import Picture, Subject, read_subject
from .scores import WITH_PHOTOGRAPHS, Measured, cosines, pair_rows, picture_rows, summarize, summarize_diversity
from .store import Store

FLAGS = {"dino": "dino", "dinov2": "dinov2", "clip-i": "clip", "clip-t": "clip"}  # metric -> flag of its model


def evaluate(folders: Sequence[Path], config: SubjectEvalConfig) -> list[dict[str, Any]]:
    """Measure runs; several are compared with the first of the same subject.

    Args:
        folders: finished runs with generated pictures.
        config: all settings.

    Returns:
        the content of each run's scores.json, in the same order.

    Raises:
        RunError: a run is not finished.
        DataError: pictures or photographs are missing or cannot be read.
        ConfigError: a model cannot be loaded, or nothing is left to measure.
        UnsupportedError: a model has not what its metric needs.
    """
    if len({folder.resolve() for folder in folders}) != len(folders) or not folders:
        raise ConfigError("Name at least one run, and each once: --run RUN.")
    with progress_bar() as bar:
        tool = _Measure(config, bar)
        measured = [tool.measure(folder) for folder in folders]
    scores = [_write_scores(each, config) for each in measured]
    if len(measured) > 1:
        _write_comparison(measured, config)
    return scores


class _Measure:
    """Computes vectors and distances that are not on the disk yet; models stay in memory between runs."""

    def __init__(self, config: SubjectEvalConfig, bar: Any) -> None:
        self.config = config
        self.bar = bar
        names = {FLAGS[metric]: getattr(config, FLAGS[metric]) for metric in config.metrics if metric in FLAGS}
        self.identities: dict[str, Identity] = {flag: identify(name, flag) for flag, name in names.items()}
        self.backbones = {flag: Backbone(name, flag) for flag, name in names.items()}
        weights = config.lpips if "lpips" in config.metrics else None
        self.lpips = Lpips(weights, config.lpips_net, allow_pickle=config.allow_pickle) if weights else None
        if not names and self.lpips is None:
            raise ConfigError(
                "There is nothing to measure: lpips needs the weights of --lpips, or add other --metrics."
            )

    def measure(self, folder: Path) -> Measured:
        subject = read_subject(folder, self.config)
        values: dict[str, np.ndarray] = {}
        models: dict[str, dict[str, Any]] = {}
        left_out: dict[str, str] = {}
        for metric in METRICS:
            if metric not in FLAGS:
                continue
            if metric not in self.config.metrics:
                left_out[metric] = "not asked for"
                continue
            flag = FLAGS[metric]
            values[metric] = self._values(metric, flag, subject)
            models[metric] = self.identities[flag]._asdict() | {"processing": self.backbones[flag].processing}
        distances: dict[tuple[str, str], float] = {}
        if "lpips" not in self.config.metrics:
            left_out["lpips"] = "not asked for"
        elif self.lpips is None:
            left_out["lpips"] = "no weights: --lpips FOLDER names them"
        else:
            distances = self._distances(subject)
            models["lpips"] = {"net": self.lpips.net, "files": {path.name: _hash(path) for path in self.lpips.files}}
            if not distances:
                left_out["lpips"] = "no prompt has two pictures"
        return Measured(subject, values, distances, models, left_out)

    def _values(self, metric: str, flag: str, subject: Subject) -> np.ndarray:
        store = Store(subject.results / "embeddings" / f"{flag}-{self.identities[flag].short}.jsonl")
        backbone = self.backbones[flag]
        needed = {picture.sha256: picture.path for picture in subject.pictures}
        needed |= {photograph.sha256: photograph.path for photograph in subject.photographs}
        self._fill(store, needed, f"{flag}: pictures of {subject.folder.name}", backbone.embed)
        pictures = store.get([picture.sha256 for picture in subject.pictures])
        if metric in WITH_PHOTOGRAPHS:
            return cosines(pictures, store.get([photograph.sha256 for photograph in subject.photographs]))
        texts = {f"text: {picture.text}": picture.text for picture in subject.pictures}
        self._fill(store, texts, f"{flag}: prompts of {subject.folder.name}", backbone.embed_texts)
        prompts = store.get([f"text: {picture.text}" for picture in subject.pictures])
        units = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in (pictures, prompts)]
        return (units[0] * units[1]).sum(1, keepdims=True)

    def _fill(self, store: Store, needed: Mapping[str, Any], what: str, embed: Callable[[Any], np.ndarray]) -> None:
        keys = store.missing(needed)
        if not keys:
            return
        task = self.bar.add_task(what, total=len(needed), completed=len(needed) - len(keys), note="")
        for start in range(0, len(keys), self.config.batch_size):
            batch = keys[start : start + self.config.batch_size]
            store.add(dict(zip(batch, embed([needed[key] for key in batch]), strict=True)))
            self.bar.update(task, advance=len(batch))

    def _distances(self, subject: Subject) -> dict[tuple[str, str], float]:
        assert self.lpips is not None
        name = "-".join(["lpips", self.lpips.net, *(_hash(path)[:12] for path in self.lpips.files)])
        store = Store(subject.results / "embeddings" / f"{name}.jsonl")
        groups = [list(each) for _, each in itertools.groupby(subject.pictures, lambda picture: picture.prompt_index)]
        task = self.bar.add_task(f"lpips: prompts of {subject.folder.name}", total=len(groups), note="")
        found: dict[tuple[str, str], float] = {}
        for group in groups:
            pairs = list(itertools.combinations(range(len(group)), 2))
            keys = {pair: " ".join(group[place].sha256 for place in pair) for pair in pairs}
            if store.missing(keys.values()):
                distances = self.lpips.distances([read_image(picture.path) for picture in group])
                store.add({keys[pair]: np.array([distances[pair]]) for pair in pairs})
            for i, j in pairs:
                found[group[i].file, group[j].file] = float(store.get([keys[i, j]])[0, 0])
            self.bar.update(task, advance=1)
        return found


def distances_by_prompt(
    pictures: Sequence[Picture], distances: Mapping[tuple[str, str], float]
) -> dict[int, list[float]]:
    """Prompt index -> LPIPS of the pairs of its pictures."""
    indices = {picture.file: picture.prompt_index for picture in pictures}
    found: dict[int, list[float]] = {}
    for (first, _), distance in distances.items():
        found.setdefault(indices[first], []).append(distance)
    return found


def _write_scores(measured: Measured, config: SubjectEvalConfig) -> dict[str, Any]:
    subject, values = measured.subject, measured.values
    found = summarize(subject.pictures, values, config.resamples, config.seed)
    distances = distances_by_prompt(subject.pictures, measured.distances)
    if distances:
        found["metrics"]["lpips"] = summarize_diversity(distances, config.resamples, config.seed)
        for row in found["prompts"]:
            if each := distances.get(row["prompt_index"]):
                row["metrics"]["lpips"] = {"mean": float(np.mean(each)), "interval": None, "interval_method": None}
    for metric, model in measured.models.items():
        if metric in found["metrics"]:
            found["metrics"][metric]["model"] = model
    scores = {
        "task": "subject",
        "method": subject.method,
        "subject": subject.name,
        "unique_token": subject.token,
        "photographs": {photograph.path.name: photograph.sha256 for photograph in subject.photographs},
        **found,
        "left_out": measured.left_out,
        "versions": runs.versions(),
    }
    folder = subject.results
    names = [photograph.path.name for photograph in subject.photographs]
    _write_csv(folder / "pictures.csv", picture_rows(subject.pictures, values))
    _write_csv(folder / "pairs.csv", pair_rows(subject.pictures, names, values))
    lpips = [{"first": a, "second": b, "lpips": distance} for (a, b), distance in measured.distances.items()]
    _write_csv(folder / "lpips.csv", lpips)
    runs.write_json(folder / "scores.json", scores)
    return scores


def _write_comparison(measured: Sequence[Measured], config: SubjectEvalConfig) -> None:
    found = compare(measured, config.resamples, config.seed)
    folders = [str(each.subject.folder) for each in measured]
    runs.write_json(measured[0].subject.results / "comparison.json", {"runs": folders, "comparisons": found})


def _write_csv(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Rows of equal keys; no file for no rows, and none of an earlier measurement."""
    path.unlink(missing_ok=True)
    if not rows:
        return
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    runs.write_text(path, text.getvalue())


def _hash(path: Path) -> str:
    return runs.file_sha256(path)
