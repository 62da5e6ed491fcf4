"""The web application: pages for raters and for the owner. No cookies, no uploads, nothing from elsewhere."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import Response
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException

from . import owner_pages, rater_pages
from .guard import Guard, Limiter
from .pages import make_templates, render
from .store import Store

_WORDS = {
    400: "This form could not be read. Please go back and try again.",
    403: "This form is no longer valid. Please load the page again and repeat the last step.",
    404: "There is nothing at this address. Please check the link that you were given.",
    405: "There is nothing at this address. Please check the link that you were given.",
    409: "This study takes no more raters.",
    429: "Too many requests. Please wait a moment.",
}


def create_app(store: Store, peek: bool = False) -> FastAPI:
    """The application of one study.

    Args:
        store: of the study; closed when the application ends.
        peek: show the owner results before the study has ended.
    """

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        store.close()

    app = FastAPI(title="rating", docs_url=None, redoc_url=None, openapi_url=None, lifespan=lifespan)
    app.state.store = store
    app.state.peek = peek
    app.state.joining = Limiter(burst=60, rate=0.2)  # new raters by invitation: a class behind one address
    app.state.templates = make_templates()
    app.include_router(rater_pages.router)
    app.include_router(owner_pages.router)
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"), name="static")
    app.add_exception_handler(HTTPException, _explain)
    app.add_exception_handler(RequestValidationError, _explain)
    app.add_middleware(Guard)
    return app


async def _explain(request: Request, error: Exception) -> Response:
    """A page for what went wrong; it repeats nothing of the request."""
    status = error.status_code if isinstance(error, HTTPException) else 400
    return render(request, "message", status, words=_WORDS.get(status, "This did not work. Please try again."))
