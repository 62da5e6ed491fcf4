"""What commands print wide tables on."""

from rich.console import Console


def wide_console(columns: int) -> Console:
    """A console as wide as the terminal; where the output goes elsewhere, one of so many columns."""
    console = Console()
    return console if console.is_terminal else Console(width=columns)
