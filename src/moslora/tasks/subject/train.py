"""Teach a diffusion model a subject from a few photographs."""

import dataclasses
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import transformers

from ... import methods, runs
from ...adapter import awaits_gradient, initialize_mixer, kernels_used
from ...checkpoint import EXPORTABLE_TYPES, FormatName, export_adapter
from ...errors import MoSLoRAWarning, UnsupportedError
from ..launch import announce, check_launch
from ..models import resolve_dtype
from ..sharded import spread_frozen
from ..training import GRADIENT_SAMPLES, method_input, refuse_dtype, seeds
from .attach import (
    Adapted,
    attach_adapters,
    check_method,
    enable_gradient_checkpointing,
    mixer_blocks,
    peft_types,
    save_adapters,
)
from .class_images import complete_class_images
from .config import SubjectTrainConfig, check
from .images import folder_identity
from .loop import Loop, new_accelerator
from .objective import Objective
from .pictures import CLASS, SUBJECT, PictureSet, encode_folder
from .pipeline import UNET, identity, load_pipeline, locate, parts
from .validation import Validation

if TYPE_CHECKING:
    from accelerate import Accelerator
    from diffusers import DiffusionPipeline

TASK, LORA, KOHYA = "subject", "lora", "lora-kohya.safetensors"


def train(config: SubjectTrainConfig, out: Path) -> dict[str, Any]:
    """Train, or resume, and fill the run folder.

    Args:
        config: all settings.
        out: the run folder: new, empty, or of an unfinished run with the same config.

    Returns:
        the content of run.json.

    Raises:
        ConfigError: a setting, pipeline or method that cannot be used.
        DataError: a picture that cannot be read.
        RunError: a run folder in the wrong state, or a loss that is not a number.
    """
    check(config)
    check_method(config)
    refuse_dtype(config)
    check_launch(has_deepspeed=False)
    folder = locate(config.model)
    inputs: dict[str, Any] = {
        "model": identity(config.model, folder, config.vae),
        "images": folder_identity(config.images),
    }
    inputs |= method_input(config.method)
    if config.start_from:
        inputs["start_from"] = runs.fingerprint(Path(config.start_from))
    if config.deterministic:
        transformers.enable_full_determinism(config.seed)
    with runs.Run.open(out, task=TASK, config=dataclasses.asdict(config), inputs=inputs, seeds=seeds(config)) as run:
        _train(config, folder, run)
    return run.record


def _train(config: SubjectTrainConfig, folder: Path, run: runs.Run) -> None:
    dtype = resolve_dtype(config.dtype)
    accelerator = new_accelerator(dtype)
    announce(run, accelerator, config.batch_size)
    pipeline = load_pipeline(folder, dtype, config.vae).to(accelerator.device)
    sets = _encode(pipeline, config, run, accelerator)
    adapted = attach_adapters(pipeline, config)
    _record_sizes(run, pipeline, adapted, sets, config)
    prompts = {SUBJECT: config.prompt, CLASS: config.class_prompt}
    prompts = {pictures.stream: prompts[pictures.stream] for pictures in sets}
    objective = Objective(pipeline, adapted, prompts, config.min_snr_gamma)
    if config.gradient_checkpointing:
        enable_gradient_checkpointing(pipeline, adapted)
    if not config.validation_prompts:
        for name in parts(pipeline).keys() - adapted.keys():
            getattr(pipeline, name).to("cpu")  # what was computed with them is kept
    if accelerator.is_fsdp2:
        spread_frozen(pipeline.unet)  # transformers finds no hidden states in text encoders that are spread
    loop = Loop(config, objective, adapted, sets, run, accelerator)
    if awaits_gradient(objective):
        steps = range(-(-GRADIENT_SAMPLES // config.batch_size))
        batches = (batch for step in steps for _, batch in loop.micro_batches(step, whole=True))
        initialize_mixer(objective, (batch._asdict() for batch in batches))
    validation = Validation(pipeline, adapted, config, run.folder / "validation", joint=accelerator.is_fsdp2)
    done = loop.fit(validation)
    if runs.is_main_process():
        save_adapters(adapted, run.folder)
        _export(adapted, run.folder)
    losses = [row["loss"] for row in runs.read_rows(run.folder / "metrics.jsonl") if "loss" in row]
    run.record |= {
        "kernels": {name: kernels_used(model) for name, model in adapted.items()},
        "steps": done,
        "final_loss": losses[-1] if losses else None,
    }


def _encode(
    pipeline: "DiffusionPipeline", config: SubjectTrainConfig, run: runs.Run, accelerator: "Accelerator"
) -> list[PictureSet]:
    """The pictures of the subject, and of its class if the prior is to be preserved."""
    sets = [encode_folder(pipeline, Path(config.images), config, config.seed, stream=SUBJECT)]
    if config.class_prompt:
        folder = complete_class_images(pipeline, config, run, accelerator)
        weight = config.prior_weight
        sets.append(encode_folder(pipeline, folder, config, config.seed, stream=CLASS, weight=weight))
    return sets


def _export(adapted: Adapted, folder: Path) -> None:
    """Write the equal plain LoRA in the forms that other programs read, if there is one."""
    if any(kind not in EXPORTABLE_TYPES for kind in peft_types(adapted)):
        return
    formats: dict[FormatName, str] = {"diffusers": LORA, "kohya": KOHYA}
    for format, name in formats.items():
        out = folder / name
        shutil.rmtree(out, ignore_errors=True)
        out.unlink(missing_ok=True)
        try:
            export_adapter(folder, out, format=format)
        except UnsupportedError as error:  # DoRA: it needs PEFT
            warnings.warn(f"There is no {out}: {error}", MoSLoRAWarning, stacklevel=2)


def _record_sizes(
    run: runs.Run,
    pipeline: "DiffusionPipeline",
    adapted: Adapted,
    sets: list[PictureSet],
    config: SubjectTrainConfig,
) -> None:
    counts = {name: methods.trained_parameters(model) for name, model in adapted.items()}
    if blocks := mixer_blocks(adapted, config):
        counts[UNET] = blocks.count  # of the mixers' parameters, only these are free
    total = sum(parameter.numel() for part in parts(pipeline).values() for parameter in part.parameters())
    run.record |= {
        "parameters": {"trainable": sum(counts.values()), "total": total, **counts},
        "samples": {pictures.stream: len(pictures.names) for pictures in sets},
    }
    run.save()
