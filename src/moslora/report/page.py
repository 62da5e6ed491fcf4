"""A report as data, and as files: one HTML page that needs no other file, and Markdown, CSV and PNG beside it.

OUT/report.html        everything; opens offline, prints, needs no script
OUT/report.md          the same without the styling; its pictures are the PNG files
OUT/<figure>.png       every figure
OUT/<table>.csv        every number, unrounded
OUT/.report.json       names of the files above, so that drawing again replaces them and nothing else
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .. import __version__, runs
from ..errors import RunError
from .canvas import embedded, freeze, save
from .summary import markdown

if TYPE_CHECKING:
    import markupsafe
    from matplotlib.figure import Figure

PAGE = "report.html"
MANIFEST = ".report.json"


class Cell(NamedTuple):
    """One field of a table."""

    text: str
    value: float | str | None = None  # unrounded, for programs that read the page
    note: str = ""  # smaller, on a line of its own
    strong: bool = False
    colour: str | None = None  # of the method, shown as a dot


class Table(NamedTuple):
    """Rows under headings; the first column names the row."""

    caption: str
    header: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    wide: bool = False  # printed on a page of its own, turned
    text: bool = False  # columns of words, not of numbers


class Picture(NamedTuple):
    """A figure with its words."""

    name: str  # of the file, and unique in the page
    figure: "Figure"
    alt: str  # what it shows, for those who cannot see it
    caption: str


class Code(NamedTuple):
    """Words to be typed."""

    text: str


class Section(NamedTuple):
    """A heading and what is under it, in order; a text is a paragraph, a list of texts a bulleted list."""

    title: str
    items: Sequence["str | list[str] | Table | Picture | Code"]

    @property
    def anchor(self) -> str:
        """Name of the section in links."""
        return re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")


class Page(NamedTuple):
    """A whole report."""

    title: str
    facts: Sequence[str]  # one line each, under the title
    sections: Sequence[Section]
    data: Mapping[str, Sequence[Mapping[str, Any]]]  # name of a CSV file -> rows of equal keys


def write_page(page: Page, out: Path) -> Path:
    """Write or redraw a report.

    Args:
        page: what to say.
        out: folder; made if missing.

    Returns:
        the HTML page.

    Raises:
        RunError: a file of that name is there which no report has written.
    """
    pictures = [item for section in page.sections for item in section.items if isinstance(item, Picture)]
    tables = {f"{name}.csv": rows for name, rows in page.data.items() if rows}
    _claim(out, [PAGE, "report.md", *(f"{picture.name}.png" for picture in pictures), *tables])
    for name, rows in tables.items():
        runs.write_text(out / name, _csv(rows))
    for picture in pictures:
        freeze(picture.figure)
        save(picture.figure, out / f"{picture.name}.png")
    runs.write_text(out / "report.md", _markdown(page))
    runs.write_text(out / PAGE, _html(page, tables))
    return out / PAGE


def _claim(out: Path, names: Sequence[str]) -> None:
    """Make sure that no foreign file would be lost, note the names, and remove what an earlier report had more."""
    if out.exists() and not out.is_dir():
        raise RunError(f"{out} is a file: expected a folder for the report. Choose another --out.")
    manifest = out / MANIFEST
    own = set(runs.read_json(manifest)["files"]) if manifest.exists() else set()
    foreign = sorted(name for name in names if name not in own and (out / name).exists())
    if foreign:
        raise RunError(
            f"{out} holds {', '.join(foreign[:5])}, which no report has written. Nothing was changed: move them away, "
            "or choose another --out."
        )
    runs.write_json(manifest, {"files": sorted({*own, *names})})
    for name in own - set(names):
        if Path(name).name == name:
            (out / name).unlink(missing_ok=True)
    runs.write_json(manifest, {"files": sorted(names)})


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _markdown(page: Page) -> str:
    parts = [f"# {_escaped(page.title)}", "  \n".join(map(_escaped, page.facts))]
    for section in page.sections:
        parts.append(f"## {_escaped(section.title)}")
        for item in section.items:
            match item:
                case str():
                    parts.append(_escaped(item))
                case list():
                    parts.append("\n".join(f"- {_escaped(line)}" for line in item))
                case Code():
                    parts.append("\n".join(f"    {line}" for line in item.text.splitlines()))
                case Picture():
                    parts.append(f"![{_escaped(item.alt)}]({item.name}.png)\n\n{_escaped(item.caption)}")
                case Table():
                    rows = [
                        [f"{cell.text} ({cell.note})" if cell.note else cell.text for cell in row] for row in item.rows
                    ]
                    rows = [[_escaped(text) for text in row] for row in [list(item.header), *rows]]
                    parts.append(f"{_escaped(item.caption)}\n\n{markdown(rows, numbers=not item.text).rstrip()}")
    return "\n\n".join(parts) + "\n"


def _escaped(text: str) -> str:
    """Text that Markdown shows as it is."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _breakable(name: str) -> "markupsafe.Markup":
    """A heading that may go on in another line after a hyphen or an underscore, if it is long."""
    import markupsafe

    parts = re.split(r"(?<=[-_])", name) if len(name) > 6 else [name]
    return markupsafe.Markup("<wbr>").join(parts)


def _html(page: Page, tables: Mapping[str, Any]) -> str:
    import jinja2

    folder = Path(__file__).parent
    loader = jinja2.FileSystemLoader(folder)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["breakable"] = _breakable
    return environment.get_template("page.html.jinja").render(
        page=page,
        style=(folder / "page.css").read_text(encoding="utf-8"),
        kind=lambda item: type(item).__name__,
        embedded=embedded,
        tables=sorted(tables),
        version=__version__,
    )
