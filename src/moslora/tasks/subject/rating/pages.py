"""What the pages of raters and of the owner share: templates, the study of a request, and the check of a form."""

from pathlib import Path
from typing import Annotated

import jinja2
from fastapi import Form, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from starlette.exceptions import HTTPException

from .guard import signed
from .store import Store

Csrf = Annotated[str, Form(max_length=128)]


def make_templates() -> jinja2.Environment:
    """Templates that escape everything they are given."""
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )


def store_of(request: Request) -> Store:
    """The study that the application serves."""
    store: Store = request.app.state.store
    return store


def render(request: Request, name: str, status: int = 200, **values: object) -> HTMLResponse:
    """A page from a template."""
    template = request.app.state.templates.get_template(f"{name}.html.jinja")
    return HTMLResponse(template.render(title=store_of(request).title, **values), status)


def check_form(request: Request, purpose: str, csrf: str) -> None:
    """Make sure that this server made the form for this purpose.

    Raises:
        HTTPException: 403.
    """
    if not signed(store_of(request).secret, purpose, csrf):
        raise HTTPException(403)


def go_to(request: Request, path: str, page: HTMLResponse | None = None) -> Response:
    """After a form: the new page itself for htmx, a redirect to it for a browser without scripts."""
    if page is not None and request.headers.get("HX-Request"):
        return page
    return RedirectResponse(path, 303)
