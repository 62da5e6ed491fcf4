"""Plain LoRA files that equal a MoSLoRA adapter, verified before they get their name."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, get_args

import torch

from ..errors import CheckpointError, ConfigError
from .components import load_components
from .files import new_path, refuse_existing
from .formats.diffusers import DiffusersFormat
from .formats.gguf import GgufFormat
from .formats.kohya import KohyaFormat
from .formats.peft import PeftFormat
from .formats.xtuner import XtunerFormat
from .layers import Adapter, Products, Update, difference, norm
from .load import load_adapter
from .progress import track

FormatName = Literal["peft", "diffusers", "kohya", "gguf", "xtuner"]
DtypeName = Literal["float32", "bfloat16", "float16"]

# Largest relative difference of delta W: a few roundings of float32, one of the 16-bit types.
TOLERANCES = {torch.float64: 1e-6, torch.float32: 1e-6, torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11}


class Format(Protocol):
    """What a file format of plain LoRA has to do. The adapters that it writes have no mixers."""

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the factors in the file; None if it is that of the adapter."""

    def check(self, adapter: Adapter) -> None:
        """Raise UnsupportedError, naming the layer, if the format cannot hold this adapter."""

    def write(self, adapter: Adapter, out: Path) -> None:
        """Write a new file or folder."""

    def read(self, out: Path, adapter: Adapter) -> dict[str, Products]:
        """delta W by name of the layer in `adapter`, from the file or folder and from nothing else."""

    def next_step(self, out: Path) -> str:
        """The line that loads the result."""


@dataclass(frozen=True)
class ExportReport:
    """What an export has written, and how exactly.

    Attributes:
        out: file or folder.
        format: of it.
        differences: layer -> |delta W of the file - delta W of the adapter| / |delta W of the adapter|, Frobenius.
        tolerance: the largest allowed.
        next_step: the line that loads the result.
    """

    out: Path
    format: FormatName
    differences: dict[str, float]
    tolerance: float
    next_step: str

    @property
    def largest(self) -> tuple[str, float]:
        """The layer that differs most, and by how much."""
        return max(self.differences.items(), key=lambda item: item[1])


def export_adapter(
    adapter_folder: str | Path,
    out: str | Path,
    *,
    format: FormatName = "peft",
    base: str | Path | None = None,
    component: str | None = None,
    dtype: DtypeName | None = None,
) -> ExportReport:
    """Write the plain LoRA of the same rank that equals a MoSLoRA adapter: A := M @ A.

    The file is read back, and delta W of each layer compared with the adapter's, before it gets its name.

    Args:
        adapter_folder: as `save_pretrained` writes it, or a run of `moslora train subject`, whose adapters of UNet and
            text encoders then go into one file (diffusers, kohya).
        out: a new folder (peft, diffusers, xtuner) or file (kohya: .safetensors, gguf: .gguf).
        format: of the result.
        base: gguf: folder with the base model's config.json; xtuner: with its projector, which is taken where the run
            trained none. The adapter's base_model_name_or_path when None.
        component: diffusers and kohya only: the part of the pipeline that was adapted, such as "unet" or
            "text_encoder"; None to recognise a unet or transformer by the names of its layers.
        dtype: of the written factors; that of the adapter's when None. gguf is always float32.

    Returns:
        the differences, layer by layer.

    Raises:
        CheckpointError: the adapter is damaged, or the result, read back, differs by more than one rounding.
        ConfigError: `out` exists, or an argument does not fit the format.
        UnsupportedError: the format cannot hold something of this adapter.
    """
    adapter_folder, out = Path(adapter_folder), Path(out)
    refuse_existing(out)
    one_file = format in ("diffusers", "kohya")
    adapter = load_components(adapter_folder) if one_file else load_adapter(adapter_folder)
    target = _format(format, adapter, out, base, component)
    target.check(adapter)
    wanted = getattr(torch, dtype) if dtype else None
    if wanted and target.dtype and wanted != target.dtype:
        raise ConfigError(f"The format {format} is written in {target.dtype} only: leave out --dtype {dtype}.")
    folded = adapter.folded(wanted or target.dtype)
    with new_path(out) as partial:
        target.write(folded, partial)
        differences = compare(target.read(partial, adapter), adapter.layers)
        allowed = max(tolerance(layer.A.dtype) for layer in folded.layers.values())
        report = ExportReport(out, format, differences, allowed, target.next_step(out))
        refuse_inexact(report)
    return report


def compare(found: Mapping[str, Products], layers: Mapping[str, Update]) -> dict[str, float]:
    """Relative difference of delta W of each layer.

    Raises:
        CheckpointError: a layer is missing or too many, or has another shape.
    """
    if found.keys() != layers.keys():
        odd = min(found.keys() ^ layers.keys())
        raise CheckpointError(f"Read back, the file has {len(found)} layers, expected {len(layers)}; differs in {odd}.")
    differences = {}
    for name, layer in track(layers.items(), len(layers), "verify"):
        expected = layer.products()
        size, error = norm(expected), norm(difference(found[name], expected))
        differences[name] = error / size if size else (float("inf") if error else 0.0)
    return differences


def tolerance(dtype: torch.dtype) -> float:
    """Largest allowed relative difference of delta W for factors of this dtype."""
    if dtype not in TOLERANCES:
        raise CheckpointError(f"Found factors of {dtype}, expected one of {', '.join(map(str, TOLERANCES))}.")
    return TOLERANCES[dtype]


def refuse_inexact(report: ExportReport) -> None:
    """Raise CheckpointError if a layer differs by more than the tolerance."""
    name, worst = report.largest
    if not worst <= report.tolerance:
        raise CheckpointError(
            f"{name}: delta W of the {report.format} file, read back, differs by {worst:.1e} from the adapter's, "
            f"expected at most {report.tolerance:.1e}. Nothing was written. Try float32 (--dtype float32)."
        )


def _format(name: FormatName, adapter: Adapter, out: Path, base: str | Path | None, component: str | None) -> Format:
    if name not in get_args(FormatName):
        raise ConfigError(f"Unknown format {name!r}: choose one of {', '.join(get_args(FormatName))}.")
    if base is not None and name not in ("gguf", "xtuner"):
        raise ConfigError(f"--base belongs to the formats gguf and xtuner, not to {name}: leave it out.")
    if component is not None and name not in ("diffusers", "kohya"):
        raise ConfigError(f"--component belongs to the formats diffusers and kohya, not to {name}: leave it out.")
    suffix = {"kohya": ".safetensors", "gguf": ".gguf"}.get(name)
    if suffix and out.suffix != suffix:
        raise ConfigError(f"{out}: the format {name} is one file: give it the ending {suffix}.")
    if name == "peft":
        return PeftFormat()
    base = base or adapter.config.get("base_model_name_or_path")
    if name == "gguf":
        return GgufFormat(base)
    if name == "xtuner":
        return XtunerFormat(base)
    return DiffusersFormat(component) if name == "diffusers" else KohyaFormat(component)
