"""Checkpoints of DeepSpeed's ZeRO, of which every process writes its own part, for another number of processes."""

import argparse
import contextlib
import io
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from .. import runs
from .processes import wait_for_all

if TYPE_CHECKING:
    from accelerate import Accelerator


def fit_to_world(checkpoint: Path, accelerator: "Accelerator") -> None:
    """Make a checkpoint readable that another number of processes wrote; does nothing for one that is already.

    DeepSpeed refuses such a checkpoint. Its own converter puts the parts together in a form ("universal") that any
    number can read, beside them in the checkpoint's folder.

    Args:
        checkpoint: of Trainer, under DeepSpeed.
        accelerator: of Trainer; its DeepSpeed config is told to read the converted form.
    """
    if parts(checkpoint) in (0, accelerator.num_processes):
        return
    if runs.is_main_process():
        _convert(checkpoint)
    wait_for_all()
    config = accelerator.state.deepspeed_plugin.hf_ds_config.config
    config["checkpoint"] = {**config.get("checkpoint", {}), "load_universal": True}


def parts(checkpoint: Path) -> int:
    """How many processes wrote the optimizer states of a checkpoint; 0 if DeepSpeed did not."""
    return len(list(_folder(checkpoint).glob("*zero_pp_rank_*_optim_states.pt")))


def float32_state(model: nn.Module) -> dict[str, Tensor]:
    """What was trained, and the buffers, whole and in the float32 of the optimizer. All processes call it together.

    In 16 bits DeepSpeed rounds an adapter for the computation and keeps its float32 numbers in the optimizer.

    Args:
        model: inside an engine, or one that has not been trained in this process and is whole.
    """
    from deepspeed.utils import safe_get_full_fp32_param

    state = dict(model.named_buffers())
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            precise = safe_get_full_fp32_param(parameter)
            state[name] = parameter if precise is None else precise
    return {name: value.detach().cpu() for name, value in state.items()}


def trained_state(checkpoint: Path) -> dict[str, Tensor]:
    """What was trained, in float32, put together from a checkpoint's parts."""
    from deepspeed.utils.zero_to_fp32 import get_fp32_state_dict_from_zero_checkpoint

    with contextlib.redirect_stdout(io.StringIO()):
        return get_fp32_state_dict_from_zero_checkpoint(str(checkpoint), exclude_frozen_parameters=True)


def _folder(checkpoint: Path) -> Path:
    latest = checkpoint / "latest"
    return checkpoint / (latest.read_text().strip() if latest.exists() else "none")


def _convert(checkpoint: Path) -> None:
    from deepspeed.checkpoint import ds_to_universal

    source = _folder(checkpoint)
    settings = argparse.Namespace(
        input_folder=str(source),
        output_folder=f"{source}_universal",
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with contextlib.redirect_stdout(io.StringIO()):  # it narrates
        ds_to_universal.main(settings)
