"""AdaLoRA's allocation of ranks, in step with transformers' Trainer."""

from typing import Any

import peft
import transformers
from torch import nn

from ..errors import ConfigError


def allocates_ranks(model: nn.Module) -> bool:
    """Whether a model is an AdaLoRA that takes ranks away while it trains.

    With the target rank equal to the initial rank, as the paper sets it, there is nothing to take away (and PEFT's
    `update_and_allocate` fails, because it looks for the 0th smallest score).
    """
    config = _adalora_config(model)
    return config is not None and config.target_r < config.init_r


class AllocateRanks(transformers.TrainerCallback):
    """Calls PEFT's `update_and_allocate` after every optimizer step, before the gradients are cleared.

    Its scores are not part of a checkpoint, and a checkpoint holds the remaining ranks only. So such a run cannot be
    resumed exactly: it has to be trained in one go.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Give the schedule the number of steps.

        Raises:
            ConfigError: the run is too short for the config's tinit and tfinal.
        """
        config = _adalora_config(self.model)
        assert config is not None
        if config.tinit >= state.max_steps - config.tfinal:
            raise ConfigError(
                f"AdaLoRA's tinit {config.tinit} and tfinal {config.tfinal} leave no step of {state.max_steps} to "
                "allocate ranks in: train longer, or lower them in the config file."
            )
        config.total_step = state.max_steps

    def on_optimizer_step(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Score the ranks and mask the weakest."""
        self.model.base_model.update_and_allocate(state.global_step)


def share_penalty(model: nn.Module, passes: int) -> None:
    """Let AdaLoRA's orthogonality penalty count once per optimizer step.

    PEFT adds it to the loss of every forward pass, while Trainer takes the loss of a step as the sum over its passes.

    Args:
        model: any; nothing happens unless it is an AdaLoRA.
        passes: forward passes per optimizer step, over all processes.
    """
    config = _adalora_config(model)
    if config is not None:
        config.orth_reg_weight /= passes


def _adalora_config(model: nn.Module) -> peft.AdaLoraConfig | None:
    configs = getattr(model, "peft_config", {}).values()
    return next((config for config in configs if isinstance(config, peft.AdaLoraConfig)), None)
