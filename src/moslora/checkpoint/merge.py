"""The base model with an adapter merged into its weights, as a folder that needs no PEFT.

Every weight becomes `W + delta W`, computed in float64 and rounded once to the dtype that the base has on the disk. The
usual case, plain updates of linear layers, goes from file to file (`streamed`); everything else that PEFT knows is
merged in memory (`whole`).
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import Tensor

from ..errors import CheckpointError, ConfigError
from .base import Base, find_base
from .files import new_path, refuse_existing
from .load import load_adapter
from .merge_streamed import StreamedMerge
from .merge_whole import merge_whole
from .projectors import MODULE, Projector, read_projector
from .quantized import Quantization
from .rounding import ALLOWED

Onto = Literal["original", "dequantized"]


@dataclass(frozen=True)
class MergeReport:
    """What a merge has written, and how exactly.

    Attributes:
        out: folder.
        class_name: of the model in transformers.
        way: "streamed" from file to file, or "whole", in memory.
        updated: tensors to which an update was added.
        replaced: tensors that were trained whole, such as the projector's.
        dequantized: tensors that became what their quantised form stands for.
        layer: the tensor whose numbers are furthest from W + delta W.
        roundings: how far, in units of what one rounding to the dtype may change.
    """

    out: Path
    class_name: str
    way: Literal["streamed", "whole"]
    updated: int
    replaced: int
    dequantized: int
    layer: str
    roundings: float


def merge_adapter(
    adapter_folder: str | Path,
    out: str | Path,
    *,
    base: str | Path | None = None,
    projector: str | Path | None = None,
    quantization: Quantization | None = None,
    onto: Onto = "original",
) -> MergeReport:
    """Write the whole model with `W + delta W` as its weights, in the base model's dtypes.

    The result is read back and compared before it gets its name.

    Args:
        adapter_folder: as `save_pretrained` writes it.
        out: a new folder.
        base: folder or hub id of the base model; the adapter's base_model_name_or_path when None.
        projector: trained projector of a vision-language model, see `read_projector`; that of the adapter, or else the
            base's, when None.
        quantization: how the base was quantised in training; read for `onto="dequantized"` only.
        onto: "original" takes W from the base, "dequantized" takes the weights beside which an adapter on a quantised
            base was trained, so that the result computes what the run computed.

    Returns:
        what was written, and the largest difference.

    Raises:
        CheckpointError: a file is damaged, or the result, read back, differs by more than one rounding.
        ConfigError: `out` exists, there is no base model, or the adapter or projector does not fit it.
        UnsupportedError: the model is not one of transformers', or a sum does not fit into the dtype of its weight.
    """
    out = Path(out)
    refuse_existing(out)
    if onto == "dequantized" and quantization is None:
        raise ConfigError("Dequantised weights are asked for, and not how they were quantised: give --quantization.")
    adapter = load_adapter(adapter_folder)
    name = base or adapter.config.get("base_model_name_or_path")
    if not name:
        raise ConfigError(f"{adapter_folder} names no base model: give its folder or hub id with --base.")
    found = find_base(str(name))
    quantized = quantization if onto == "dequantized" else None
    trained = _projector(found, read_projector(projector)) if projector else {}
    streamed = StreamedMerge.of(adapter, found, trained, quantized)
    with new_path(out) as partial:
        partial.mkdir()
        if streamed:
            differences = streamed.write(partial)
            counts = streamed.counts
        else:
            differences, counts = merge_whole(adapter, found, partial, trained, quantized)
        found.copy_settings(partial)
        layer, largest = max(differences.items(), key=lambda item: item[1])
        if not largest <= ALLOWED:
            raise CheckpointError(
                f"{layer}: the written weight, read back, is {largest:.3g} roundings away from W + delta W, expected "
                "at most one. Nothing was written: the disk or the memory is at fault, try again."
            )
    return MergeReport(out, found.class_name, "streamed" if streamed else "whole", *counts, layer, largest)


def _projector(base: Base, projector: Projector) -> dict[str, Tensor]:
    """A trained projector by the names that its tensors have in the model."""
    names = [name for name in base.skeleton.state_dict() if f"{MODULE}." in name]
    places = {name.partition(f"{MODULE}.")[2]: name for name in names}
    if places.keys() != projector.tensors.keys():
        raise ConfigError(
            f"{projector.file} holds the projector {', '.join(sorted(projector.tensors))}, and the {base.class_name} "
            f"in {base.folder} has {', '.join(sorted(places)) or 'none'}: give the base that was trained."
        )
    config = base.skeleton.config
    projector.check_shapes(config.vision_config.hidden_size, config.text_config.hidden_size, str(base.folder))
    return {places[part]: tensor for part, tensor in projector.tensors.items()}
