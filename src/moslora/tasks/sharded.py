"""Models whose weights are spread over processes, as FSDP2 and ZeRO-3 leave them."""

from contextlib import ExitStack
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from accelerate import Accelerator


def name_layers(accelerator: "Accelerator", model: nn.Module) -> None:
    """Tell FSDP2 which kinds of layers to spread, unless its config does: those of the model's list that it has.

    accelerate would stop at one that is on the list and not in the model, as CLIP's text layers in a LLaVA.
    """
    plugin = getattr(accelerator.state, "fsdp_plugin", None)
    if plugin is not None and plugin.transformer_cls_names_to_wrap is None:
        plugin.transformer_cls_names_to_wrap = sorted({type(layer).__name__ for layer in _listed_layers(model)})


def spread_frozen(model: nn.Module) -> None:
    """Spread the frozen weights over all processes with FSDP2; what is trained stays whole in each of them.

    Gradients of what is trained are left to the caller, as the checkpoints are, which know of no processes. All
    processes have to call the model equally often.

    Args:
        model: whose `_no_split_modules` name the kinds of layers that are spread one by one.
    """
    from torch.distributed.fsdp import fully_shard

    trained = {parameter for parameter in model.parameters() if parameter.requires_grad}
    for layer in reversed(_listed_layers(model)):  # the inner ones first
        fully_shard(layer, ignored_params=trained)
    fully_shard(model, ignored_params=trained)


def whole_state(module: nn.Module) -> dict[str, Tensor]:
    """The state dict with every tensor whole, on the CPU. All processes have to call it together."""
    parameters = list(module.parameters())
    with ExitStack() as stack:
        if any(hasattr(parameter, "ds_id") for parameter in parameters):
            from deepspeed import zero

            stack.enter_context(zero.GatheredParameters(parameters))
        return {
            name: (value.full_tensor() if hasattr(value, "full_tensor") else value).detach().cpu().clone()
            for name, value in module.state_dict().items()
        }


def _listed_layers(model: nn.Module) -> list[nn.Module]:
    """The layers of the kinds that a model names as the ones to keep in one piece; the outer ones first."""
    kinds = set(getattr(model, "_no_split_modules", None) or ())
    return [module for module in model.modules() if type(module).__name__ in kinds]
