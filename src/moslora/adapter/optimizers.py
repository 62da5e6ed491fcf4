"""PEFT's LoRA-FA optimiser for MoSLoRA; LoRA+ and every torch optimiser need no help."""

import torch
from peft import PeftModel
from peft.optimizers import create_lorafa_optimizer as create_plain_lorafa_optimizer
from torch.optim import Optimizer

from ..errors import UnsupportedError


def create_lorafa_optimizer(
    model: PeftModel, r: int, lora_alpha: float, lr: float, weight_decay: float = 0.0
) -> Optimizer:
    """LoRA-FA (arXiv:2308.03303) with a mixer: A and M are frozen, B is trained in the metric of `M @ A`.

    Use this in the place of `peft.optimizers.create_lorafa_optimizer`, which pairs every two adapter parameters as A
    and B and so mistakes the mixer for a B.

    Args:
        model: with MoSLoRA adapters.
        r: rank.
        lora_alpha: the update is scaled by lora_alpha / r.
        lr: learning rate.
        weight_decay: as in AdamW.

    Raises:
        UnsupportedError: an embedding is adapted with a mixer.
    """
    optimizer = create_plain_lorafa_optimizer(model, r=r, lora_alpha=lora_alpha, lr=lr, weight_decay=weight_decay)
    group = optimizer.param_groups[0]
    kept = []
    for parameter, name, scaling in zip(group["params"], group["names"], group["scaling_factors"], strict=True):
        owner, _, leaf = name.rpartition(".")
        if ".lora_embedding_mixer." in name:
            raise UnsupportedError(
                f"LoRA-FA has no rule for the mixer of an embedding ({name}): leave the embedding out of "
                "target_modules, or give it mixer_pattern={'<its name>': 'identity'}."
            )
        if leaf == "raw":
            with torch.no_grad():
                parameter = model.get_submodule(owner).effective()
        if leaf != "mixer":
            kept.append((parameter, name, scaling))
    parameters, names, scalings = zip(*kept, strict=True)
    group.update(params=list(parameters), names=list(names), scaling_factors=list(scalings))
    return optimizer
