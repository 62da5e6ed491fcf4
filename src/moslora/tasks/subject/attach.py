"""From the settings of a run to the adapters of a pipeline, and adapters as folders."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import peft
import torch
import transformers
from torch import nn

from ... import methods, runs
from ...adapter import MosLoraConfig, OffDiagonal, train_off_diagonal
from ...checkpoint import COMPONENT_FOLDERS, component_folders, read_ranks
from ...errors import ConfigError
from .config import SubjectTrainConfig
from .pipeline import UNET, parts, text_encoders

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline

Adapted = dict[str, peft.PeftModel]  # name of the part -> PeftModel around it


def attach_adapters(pipeline: "DiffusionPipeline", config: SubjectTrainConfig) -> Adapted:
    """The adapted parts of a pipeline, which is changed in place. Each starts from a random stream of its own.

    Raises:
        ConfigError: the method or its settings, or the adapter to start from, cannot be used or do not fit a part.
        CheckpointError: that adapter is no mix, but only its mixers' blocks are to be trained.
    """
    if config.start_from:
        return {UNET: load_start(pipeline.unet, config)}
    networks = {UNET: pipeline.unet}
    if config.train_text_encoders:
        networks |= text_encoders(pipeline)
    return {name: attach_adapter(network, name, config) for name, network in networks.items()}


def check_method(config: SubjectTrainConfig) -> None:
    """Raise ConfigError for a method that is unknown or cannot have these settings."""
    if config.train_text_encoders and config.method.startswith(methods.FILE):
        raise ConfigError(f"{config.method} names the layers of one network: leave train_text_encoders out.")
    methods.peft_config(config.method, **_settings(config, UNET))


def _settings(config: SubjectTrainConfig, name: str) -> dict[str, Any]:
    """All settings of the method on one part of the pipeline."""
    targets = list(config.target_modules if name == UNET else config.text_target_modules)
    return {
        "rank": config.rank,
        "alpha": config.alpha,
        "dropout": config.dropout,
        "target_modules": "all-linear" if targets == ["all-linear"] else targets,
        "task_type": None,
        "kernel": config.kernel,
    }


def attach_adapter(network: nn.Module, name: str, config: SubjectTrainConfig) -> peft.PeftModel:
    """One part with its adapter; raises ConfigError as `attach_adapters` does."""
    transformers.set_seed(runs.stream_seed(config.seed, "init" if name == UNET else f"init/{name}"))
    try:
        adapted = methods.attach(network, config.method, **_settings(config, name))
    except ConfigError as error:
        raise ConfigError(f"The adapter does not fit the {name} of {config.model!r}: {error}") from error
    assert isinstance(adapted, peft.PeftModel)
    if methods.allocates_ranks(adapted):
        raise ConfigError(
            f"Method {config.method!r} moves ranks between layers, which is not done here: choose another."
        )
    return adapted


def load_start(unet: nn.Module, config: SubjectTrainConfig) -> peft.PeftModel:
    """The UNet with the adapter that training starts from; raises what `attach_adapters` does."""
    folder = config.start_from
    try:
        settings = peft.PeftConfig.from_pretrained(folder)
        if isinstance(settings, MosLoraConfig):
            settings.kernel = config.kernel
        adapted = peft.PeftModel.from_pretrained(unet, folder, config=settings, is_trainable=True)
    except (KeyError, RuntimeError, ValueError) as error:
        raise ConfigError(f"start_from {folder} does not fit the {UNET} of {config.model!r}: {error}") from error
    if config.train == "mixer-blocks":
        train_off_diagonal(adapted, read_ranks(folder))
    return adapted


def mixer_blocks(adapted: Adapted, config: SubjectTrainConfig) -> OffDiagonal | None:
    """What is trained of a mix, if nothing else is."""
    return OffDiagonal(adapted[UNET], read_ranks(config.start_from)) if config.train == "mixer-blocks" else None


def save_adapters(adapted: Adapted, folder: Path) -> None:
    """Write each adapter into its folder of `COMPONENT_FOLDERS`, all or nothing each."""
    for name, model in adapted.items():
        unfinished = folder / f"{COMPONENT_FOLDERS[name]}.unfinished"
        shutil.rmtree(unfinished, ignore_errors=True)
        model.save_pretrained(unfinished)
        (unfinished / "README.md").unlink(missing_ok=True)  # an empty model card of PEFT's
        shutil.rmtree(folder / COMPONENT_FOLDERS[name], ignore_errors=True)
        unfinished.rename(folder / COMPONENT_FOLDERS[name])


def load_adapters(pipeline: "DiffusionPipeline", run: Path) -> Adapted:
    """Put the saved adapters of a run into a pipeline, which is changed in place.

    Raises:
        ConfigError: the run has no adapter, or one that does not fit.
    """
    folders = component_folders(run)
    if UNET not in folders:
        raise ConfigError(f"{run} holds no adapter: expected the folder {COMPONENT_FOLDERS[UNET]} of a finished run.")
    networks = parts(pipeline)
    adapted: Adapted = {}
    for name, folder in folders.items():
        try:
            adapted[name] = peft.PeftModel.from_pretrained(networks[name], str(folder)).eval()
        except (KeyError, RuntimeError, ValueError) as error:
            raise ConfigError(f"{folder} does not fit the {name} of the pipeline: {error}") from error
    return adapted


def enable_gradient_checkpointing(pipeline: "DiffusionPipeline", adapted: Adapted) -> None:
    """Let the adapted networks compute their activations again in the backward pass."""
    for name in adapted:
        if name == UNET:
            pipeline.unet.enable_gradient_checkpointing()
        else:
            getattr(pipeline, name).gradient_checkpointing_enable({"use_reentrant": False})


def peft_types(adapted: Adapted) -> set[str]:
    """PEFT's names of the kinds of adapters."""
    return {model.active_peft_config.peft_type for model in adapted.values()}


def trained(adapted: Adapted) -> dict[str, nn.Parameter]:
    """Every trained parameter, by part and name, always in the same order."""
    return {
        f"{part}.{name}": parameter
        for part, model in adapted.items()
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    }


def create_optimizer(adapted: Adapted, config: SubjectTrainConfig) -> torch.optim.Optimizer:
    """AdamW with a learning rate for the UNet and one for the text encoders.

    Raises:
        ConfigError: 8-bit AdamW without bitsandbytes.
    """
    optimizer_class = _optimizer_class(config.optimizer)
    groups: list[dict[str, Any]] = []
    for name, model in adapted.items():
        rate = config.learning_rate if name == UNET else config.text_learning_rate
        settings = {"lr": rate, "weight_decay": config.weight_decay}
        own = methods.create_optimizer(model, config.method, torch.optim.AdamW, **settings)
        if own is None:
            parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
            groups.append({"params": parameters, **settings})
        else:
            groups += [{key: group[key] for key in ("params", *settings)} for group in own.param_groups]
    optimizer = optimizer_class(groups, lr=config.learning_rate, weight_decay=config.weight_decay)
    blocks = mixer_blocks(adapted, config)
    return blocks.guard(optimizer) if blocks else optimizer


def _optimizer_class(name: str) -> Callable[..., torch.optim.Optimizer]:
    if name == "adamw":
        return torch.optim.AdamW
    try:
        from bitsandbytes.optim import AdamW8bit
    except ImportError as error:
        raise ConfigError("optimizer adamw-8bit needs bitsandbytes: pip install 'moslora[quantized]'.") from error
    return AdamW8bit
