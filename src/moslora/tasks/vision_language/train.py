"""Fine-tune a LLaVA-shaped model on conversations about images, with transformers' Trainer."""

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import accelerate
import torch

from ... import methods, runs
from ..guarded import GuardedTrainer
from ..launch import check_launch
from ..models import resolve_dtype
from ..training import build_trainer, method_input, refuse_dtype, seeds, train_and_save
from . import model
from .attach import attach_adapter
from .batches import ModalityTrainer
from .config import ADAPTER, PROJECTOR, VisionLanguageTrainConfig, check
from .projector import PROJECTOR_FILE, find_projector, load_projector, save_projector
from .prompt import ChatForm
from .samples import Collator, Shown, Split, prepare
from .training_set import TrainingSet, load_training_set, only_images

TASK = "vision-language"
KNOWN_IMAGES = ".images.jsonl"  # what is known of every image; hidden, since it is there before the run is begun


def train(config: VisionLanguageTrainConfig, out: Path) -> dict[str, Any]:
    """Train, or resume, and fill the run folder.

    Args:
        config: all settings.
        out: the run folder: new, empty, or of an unfinished run with the same config.

    Returns:
        the content of run.json.

    Raises:
        ConfigError: a setting, model or method that cannot be used.
        DataError: a training file or image that cannot be used.
        RunError: a run folder in the wrong state, or a loss that is not a number.
    """
    check(config)
    refuse_dtype(config)
    check_launch(config.deepspeed)
    model.load_config(config.model, config.trust_remote_code)  # refuses what is no model
    world = accelerate.PartialState(cpu=not torch.accelerator.is_available())
    with world.main_process_first():  # the others read what the first has found
        found = load_training_set(config, out / KNOWN_IMAGES)
    if config.train == PROJECTOR:
        found = only_images(found)
    inputs: dict[str, Any] = {"model": model.identity(config.model), **found.inputs}
    if config.projector:
        inputs["projector"] = runs.file_sha256(find_projector(config.projector))
    inputs |= method_input(config.method)
    with runs.Run.open(out, task=TASK, config=dataclasses.asdict(config), inputs=inputs, seeds=seeds(config)) as run:
        if runs.is_main_process():
            runs.write_json(out / "data.json", found.facts)
        _train(config, found, run)
    return run.record


def load_adapted(config: VisionLanguageTrainConfig) -> torch.nn.Module:
    """The model of a run before its first step."""
    # Weights that are trained stay float32, as adapters do; the computation is in the dtype of the settings.
    dtype = torch.float32 if config.method == methods.FULL else resolve_dtype(config.dtype)
    base = model.load_base(
        config.model,
        dtype,
        quantize=config.quantize,
        double_quantize=config.double_quantize,
        trust_remote_code=config.trust_remote_code,
    )
    if config.projector:
        load_projector(base, find_projector(config.projector))
    return attach_adapter(base, config)


def _train(config: VisionLanguageTrainConfig, found: TrainingSet, run: runs.Run) -> None:
    processor = model.load_processor(config.model, config.trust_remote_code)
    split = _samples(config, found, processor)
    adapted = load_adapted(config)
    run.record |= {
        "parameters": {
            "trainable": methods.trained_parameters(adapted),
            "total": sum(parameter.numel() for parameter in adapted.parameters()),
        },
        "samples": {
            "train": len(split.train),
            "with_image": sum(split.train.has_image),
            "validation": len(split.validation) if split.validation else 0,
            "dropped": split.dropped,
            "skipped": found.facts["skipped"],
        },
    }
    run.save()
    trainer = build_trainer(
        config,
        adapted,
        split.train,
        split.validation,
        Collator(processor.tokenizer.pad_token_id),
        run.folder / "checkpoints",
        trainer_class=ModalityTrainer if config.group_by_modality else GuardedTrainer,
        dataloader_num_workers=config.workers,
        # A batch of text alone gives the vision tower and the projector no gradient.
        ddp_find_unused_parameters=not all(split.train.has_image),
    )
    train_and_save(config, trainer, run, processor)
    if config.method != methods.FULL and (config.projector or config.train != ADAPTER):
        save_projector(trainer.model, run.folder / PROJECTOR_FILE)
    if runs.is_main_process() and config.train == PROJECTOR:
        shutil.rmtree(run.folder / "adapter")  # held the same projector, and no adapter


def _samples(config: VisionLanguageTrainConfig, found: TrainingSet, processor: Any) -> Split:
    shown = Shown(
        form=ChatForm(processor),
        processor=processor,
        folder=Path(config.images),
        max_tokens=config.max_tokens,
        pad_to_square=config.pad_to_square,
        max_pixels=config.max_pixels,
    )
    seed = runs.stream_seed(config.seed, "data")
    return prepare(found, shown, validation_size=config.validation_size, seed=seed)
