"""Show what an adapter has learned: its mixers, and how far it moves each layer.

    moslora inspect runs/moslora/adapter --plot mixers.png

Prints a table: rank, mixer, largest and smallest singular value and condition number of M (of the worst expert, where a
layer has several), and the Frobenius norm of delta W. --plot draws every mixer as a heat map.
"""

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

if TYPE_CHECKING:
    from ..checkpoint import Adapter


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora inspect`."""

    adapter: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="ADAPTER")]
    """Folder with adapter_config.json and adapter_model.safetensors."""
    plot: Path | None = None
    """New picture of the mixers; its ending says the format, for example .png or .svg."""

    def run(self) -> None:
        """Print the table, draw the picture."""
        from ..checkpoint import load_adapter
        from ..errors import ConfigError

        if self.plot is not None and self.plot.exists():
            raise ConfigError(f"{self.plot} exists already, and nothing is overwritten: choose another --plot.")
        adapter = load_adapter(self.adapter)
        print_layers(adapter)
        if self.plot is None:
            print(f"next: moslora inspect {self.adapter} --plot mixers.png")
        else:
            self._draw(adapter, self.plot)
            print(f"picture: {self.plot}")

    def _draw(self, adapter: "Adapter", out: Path) -> None:
        from ..report.mixers import draw_mixers

        mixers: dict[str, Any] = {}
        for name, layer in adapter.layers.items():
            if layer.M is not None and layer.M.ndim > 2:  # of experts, or of the positions of a kernel
                several = layer.full_mixer().float().reshape(-1, layer.r, layer.r)
                mixers |= {f"{name} [{number}]": M.numpy() for number, M in enumerate(several)}
            elif layer.M is not None:
                mixers[name] = layer.M.float().numpy()
        draw_mixers(mixers, out)


def print_layers(adapter: "Adapter") -> None:
    """Print one row a layer."""
    import torch
    from rich.console import Console
    from rich.table import Table

    from ..checkpoint import norm

    table = Table()
    table.add_column("layer", overflow="fold")
    for column in ("rank", "mixer", "max σ", "min σ", "cond", "|ΔW|"):  # noqa: RUF001
        table.add_column(column, justify="right", no_wrap=True)
    for name, layer in adapter.layers.items():
        M = layer.full_mixer()
        sigma = torch.linalg.svdvals(M)
        # What is below the rounding of the decomposition is zero: some processors leave 1e-17 in its place.
        rounding = torch.finfo(M.dtype).eps * layer.r * sigma.amax(-1, keepdim=True)
        sigma = torch.where(sigma > rounding, sigma, 0)
        high, low = sigma.max().item(), sigma.min().item()
        condition = (sigma.max(-1).values / sigma.min(-1).values).max().item()
        numbers = (f"{value:.3g}" for value in (high, low, condition, norm(layer.products())))
        table.add_row(name, str(layer.r), layer.mixer, *numbers)
    console = Console()
    (console if console.is_terminal else Console(width=160)).print(table)
