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
        listed = set(getattr(model, "_no_split_modules", None) or ())
        plugin.transformer_cls_names_to_wrap = sorted(listed & {type(module).__name__ for module in model.modules()})


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
