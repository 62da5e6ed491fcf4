"""One module per file format of plain LoRA; each writes a folded adapter and reads its delta W back."""

from collections.abc import Container

from ...errors import UnsupportedError
from ..layers import Adapter

# Settings of PEFT by which an adapter is more than delta W = scale * B @ A on the base model's own weights.
BEYOND_PLAIN = (
    "alora_invocation_tokens",
    "arrow_config",
    "kasa_config",
    "layer_replication",
    "monteclora_config",
    "use_qalora",
)
# PiSSA and the like take their start out of the base weights, so delta W belongs to another base.
PLAIN_INITS = (None, True, False, "gaussian", "eva", "orthogonal")


def refuse_what_is_lost(
    adapter: Adapter,
    format: str,
    *,
    convolutions: bool = False,
    embeddings: bool = False,
    unchanged: Container[str] = (),
) -> None:
    """Raise UnsupportedError, naming the layers, if the adapter is more than linear layers of plain LoRA.

    Args:
        adapter: mixers are no matter.
        format: its name, for the message.
        convolutions: whether the format holds those too.
        embeddings: whether the format holds those too.
        unchanged: keys of tensors that only repeat the base model's, so that nothing is lost with them.
    """
    problems = [f"{key}={adapter.config[key]!r} in the config" for key in BEYOND_PLAIN if adapter.config.get(key)]
    init = adapter.config.get("init_lora_weights")
    if init not in PLAIN_INITS:
        problems.append(f"init_lora_weights={init!r} in the config: it changed the base weights")
    for name, layer in adapter.layers.items():
        problems += [f"{name}.{part}" for part in layer.extras]
        if layer.experts > 1:
            problems.append(f"{name}: {layer.experts} experts")
        if layer.is_embedding and not embeddings:
            problems.append(f"{name}: an embedding")
        if layer.A.ndim > 2 and not convolutions:
            problems.append(f"{name}: a convolution")
    problems += [f"{key}: a tensor of the base model" for key in adapter.others if key not in unchanged]
    if problems:
        shown = problems[:5] + ([f"and {len(problems) - 5} more"] if len(problems) > 5 else [])
        raise UnsupportedError(
            f"{adapter.file}: the format {format} cannot hold {len(problems)} thing(s) of this adapter:\n  "
            + "\n  ".join(shown)
            + "\nNothing was written. Use --format peft, which holds everything, or `moslora merge`."
        )
