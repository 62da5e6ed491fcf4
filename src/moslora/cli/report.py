"""Draw one page of a study, or of single runs: tables, figures, conclusions.

    moslora report study
    moslora report runs/lora runs/moslora --out report

DIR is the folder of `moslora compare`, or one or several run folders. Writes report.html, which needs no other file,
and the same as Markdown, CSV and PNG. Draws its own files again; replaces no others.
"""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora report`."""

    folders: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="DIR...")]
    """A study folder, or run folders."""
    out: Path | None = None
    """Folder for the report; DIR/report by default."""
    published: Literal["auto", "always", "never"] = "auto"
    """Show the paper's numbers in tables of their own; auto: if the study's benchmarks have the paper's names."""

    def run(self) -> None:
        """Write the report, print where it is."""
        from rich.console import Console

        from ..errors import ConfigError
        from ..report.run_folders import write_runs_report
        from ..report.study import write_report

        if not self.folders:
            raise ConfigError("Name a study folder, or one or several run folders: moslora report DIR")
        if len(self.folders) > 1 and self.out is None:
            raise ConfigError("Several folders have no place of their own for a report: say where with --out.")
        studies = [folder for folder in self.folders if (folder / "study.json").exists()]
        if studies and len(self.folders) > 1:
            raise ConfigError(f"{studies[0]} is a study: report it alone, or name run folders only.")
        out = self.out or self.folders[0] / "report"
        with Console(stderr=True).status("reading and drawing"):
            page = write_report(studies[0], out, self.published) if studies else write_runs_report(self.folders, out)
        print(page)
