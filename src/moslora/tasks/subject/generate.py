"""Draw pictures of the subject that a run has learned.

    RUN/images/images.json    settings and hashes of base and adapters
    RUN/images/images.jsonl   file, prompt_index, prompt and seed of every picture
    RUN/images/0003-1.png     the picture of prompt 3 with seed 1
    RUN/images/sheet.png      all of them with their prompts, below the photographs of the subject

The noise of a picture depends on its prompt and seed alone, so it is the same for every run and method. Every picture
reaches the disk before the next batch begins, so interrupted work goes on where it stopped.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from ... import runs
from ...checkpoint import component_folders
from ...errors import ConfigError, RunError
from ...locks import lock_folder
from ..image_files import read_image
from ..models import resolve_dtype
from ..progress import progress_bar
from .attach import load_adapters
from .config import SubjectGenerateConfig
from .images import Size, find_pictures, save_whole
from .pipeline import draw, load_pipeline, locate
from .prompts import read_prompts, subject_of
from .sheet import Row, draw_sheet

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

ROWS, SETTINGS, SHEET = "images.jsonl", "images.json", "sheet.png"


def generate(config: SubjectGenerateConfig) -> dict[Path, int]:
    """Draw what is still missing.

    Args:
        config: all settings.

    Returns:
        the filled folder of each run -> pictures in it.

    Raises:
        RunError: a run is not finished, or its folder holds pictures of other settings.
        ConfigError: a setting or prompt that cannot be used.
        DataError: a file of prompts that cannot be read.
    """
    if not config.seeds or len(set(config.seeds)) < len(config.seeds):
        raise ConfigError(f"seeds are {config.seeds}: give at least one, none of them twice.")
    if config.steps < 1 or config.batch_size < 1:
        raise ConfigError("steps and batch_size must be above 0.")
    if config.sheet and config.sheet.exists():
        raise ConfigError(f"{config.sheet} exists already, and nothing is overwritten: choose another --sheet.")
    records = {run: _finished(run) for run in config.run}
    counts = {results_folder(config, run): _draw_run(config, run, record) for run, record in records.items()}
    if config.sheet:
        config.sheet.parent.mkdir(parents=True, exist_ok=True)
        _compare(config, records).save(config.sheet)
    return counts


def results_folder(config: SubjectGenerateConfig, run: Path) -> Path:
    """The folder of a run that is filled."""
    return run / (config.into or ("images-base" if config.base_only else "images"))


def picture_name(prompt_index: int, seed: int) -> str:
    """File name of a picture."""
    return f"{prompt_index:04d}-{seed}.png"


def _finished(run: Path) -> dict[str, Any]:
    record = runs.finished_record(run)
    if record.get("task") != "subject":
        raise RunError(f"{run} is a run of task {record.get('task')!r}, expected one of `moslora train subject`.")
    return record


def _prompts(config: SubjectGenerateConfig, record: dict[str, Any]) -> list[str]:
    prompts = read_prompts(config.prompts, config.subject or subject_of(record["config"]["prompt"]))
    return prompts[: config.limit] if config.limit else prompts


def _size(text: str, resolution: int) -> Size:
    width, _, height = (text or str(resolution)).partition("x")
    if not width.isdigit() or (height and not height.isdigit()):
        raise ConfigError(f"size is {text!r}: expected pixels, such as 1024 or 1024x768.")
    return Size(int(width), int(height or width))


def _draw_run(config: SubjectGenerateConfig, run: Path, record: dict[str, Any]) -> int:
    folder, prompts = results_folder(config, run), _prompts(config, record)
    size = _size(config.size, record["config"]["resolution"])
    folder.mkdir(parents=True, exist_ok=True)
    lock = lock_folder(folder)
    try:
        _record_settings(config, folder, record, size, run)
        done = _drawn(folder, prompts)
        wanted = [(index, seed) for index in range(len(prompts)) for seed in config.seeds]
        missing = [each for each in wanted if each not in done]
        if missing:
            pipeline = _load(config, run, record)
            _draw_missing(config, pipeline, folder, prompts, missing, size, len(wanted))
        rows = sorted(runs.read_rows(folder / ROWS), key=lambda row: (row["prompt_index"], row["seed"]))
        runs.rewrite_rows(folder / ROWS, rows)
        _overview(config, folder, prompts, record).save(folder / SHEET)
    finally:
        if lock is not None:
            os.close(lock)
    return len(rows)


def _record_settings(
    config: SubjectGenerateConfig, folder: Path, record: dict[str, Any], size: Size, run: Path
) -> None:
    """Write images.json, or make sure that what is there agrees. More prompts and seeds may join later."""
    adapters = {} if config.base_only else component_folders(run)
    model = record["inputs"]["model"]
    settings = {
        "settings": {
            "steps": config.steps,
            "guidance": config.guidance,
            "negative_prompt": config.negative_prompt,
            "width": size.width,
            "height": size.height,
        },
        "model": {part: found if part == "name" else found.get("sha256") for part, found in model.items()},
        "adapters": {name: runs.fingerprint(path)["sha256"] for name, path in adapters.items()},
    }
    path = folder / SETTINGS
    if path.exists():
        runs.refuse_differences(folder, runs.read_json(path), settings)
    runs.write_json(path, settings)


def _drawn(folder: Path, prompts: list[str]) -> set[tuple[int, int]]:
    """Prompt index and seed of the pictures that are there; cuts off what a crash left half-written."""
    rows = [row for row in runs.read_rows(folder / ROWS) if (folder / row["file"]).is_file()]
    for row in rows:
        index = row["prompt_index"]
        if index < len(prompts) and prompts[index] != row["prompt"]:
            raise RunError(
                f"{folder} holds other pictures: prompt {index} is {row['prompt']!r}, not {prompts[index]!r}."
                " Nothing was drawn; name another folder with --into."
            )
    runs.rewrite_rows(folder / ROWS, rows)
    return {(row["prompt_index"], row["seed"]) for row in rows}


def _load(config: SubjectGenerateConfig, run: Path, record: dict[str, Any]) -> "DiffusionPipeline":
    trained = record["config"]
    pipeline = load_pipeline(locate(trained["model"]), resolve_dtype(trained["dtype"]), trained["vae"])
    if not config.base_only:
        load_adapters(pipeline, run)
    return pipeline.to("cuda" if torch.cuda.is_available() else "cpu")


def _draw_missing(
    config: SubjectGenerateConfig,
    pipeline: "DiffusionPipeline",
    folder: Path,
    prompts: list[str],
    missing: list[tuple[int, int]],
    size: Size,
    total: int,
) -> None:
    with progress_bar() as bar:
        task = bar.add_task(str(folder), total=total, completed=total - len(missing), note="")
        for start in range(0, len(missing), config.batch_size):
            batch = missing[start : start + config.batch_size]
            images = draw(
                pipeline,
                [prompts[index] for index, _ in batch],
                [runs.stream_seed(seed, f"picture/{prompts[index]}") for index, seed in batch],
                width=size.width,
                height=size.height,
                steps=config.steps,
                guidance=config.guidance,
                negative_prompt=config.negative_prompt,
            )
            rows = []
            for (index, seed), image in zip(batch, images, strict=True):
                name = picture_name(index, seed)
                save_whole(image, folder / name)
                rows.append({"file": name, "prompt_index": index, "prompt": prompts[index], "seed": seed})
            runs.append_rows(folder / ROWS, rows)
            bar.update(task, advance=len(batch))


def _references(record: dict[str, Any]) -> list[Image.Image]:
    """The photographs of the subject, if they are still where they were."""
    folder = Path(record["config"]["images"])
    return [read_image(path) for path in find_pictures(folder)] if folder.is_dir() else []


def _open(path: Path) -> Image.Image | None:
    return Image.open(path) if path.is_file() else None


def _overview(config: SubjectGenerateConfig, folder: Path, prompts: list[str], record: dict[str, Any]) -> Image.Image:
    """A row per prompt, a column per seed."""
    rows = [
        Row(prompt, [_open(folder / picture_name(index, seed)) for seed in config.seeds])
        for index, prompt in enumerate(prompts)
    ]
    return draw_sheet([f"seed {seed}" for seed in config.seeds], rows, _references(record))


def _compare(config: SubjectGenerateConfig, records: dict[Path, dict[str, Any]]) -> Image.Image:
    """A row per prompt, a column per run, of the first seed."""
    names = [record["config"]["method"] for record in records.values()]
    titles = names if len(set(names)) == len(names) else [run.name for run in records]
    first = next(iter(records.values()))
    rows = [
        Row(prompt, [_open(results_folder(config, run) / picture_name(index, config.seeds[0])) for run in records])
        for index, prompt in enumerate(_prompts(config, first))
    ]
    return draw_sheet(titles, rows, _references(first))
