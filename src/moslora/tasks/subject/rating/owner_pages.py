"""Pages of the owner: how far everybody is; results once the study has ended. Methods are named nowhere."""

import datetime
import hmac
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from .... import runs
from ....errors import ConfigError
from . import voting
from .guard import signature
from .pages import Csrf, check_form, go_to, render, store_of
from .questions import QUESTIONS

router = APIRouter()


@router.get("/owner/{token}")
def overview(request: Request, token: str) -> Response:
    """The overview."""
    _check_owner(request, token)
    return _overview(request, token)


@router.post("/owner/{token}/raters")
def add_raters(request: Request, token: str, csrf: Csrf, count: Annotated[int, Form(ge=1, le=100)]) -> Response:
    """Make more raters."""
    _check_owner(request, token)
    check_form(request, token, csrf)
    try:
        store_of(request).add_raters(count)
    except ConfigError:
        raise HTTPException(409) from None
    return go_to(request, f"/owner/{token}", _overview(request, token))


@router.post("/owner/{token}/end")
def end(request: Request, token: str, csrf: Csrf, ended: Annotated[Literal["yes", "no"], Form()]) -> Response:
    """End the study, so that no vote is taken any more, or open it again."""
    _check_owner(request, token)
    check_form(request, token, csrf)
    store_of(request).set_fact("ended", runs.now() if ended == "yes" else "")
    return go_to(request, f"/owner/{token}", _overview(request, token))


def _overview(request: Request, token: str) -> HTMLResponse:
    store = store_of(request)
    raters = voting.progress(store)
    complete = bool(raters) and all(each.done == each.total for each in raters)
    return render(
        request,
        "overview",
        home=f"/owner/{token}",
        csrf=signature(store.secret, token),
        raters=raters,
        ago=_ago,
        done=sum(each.done for each in raters),
        total=sum(each.total for each in raters),
        ended=store.ended,
        tally=_tally(request) if store.ended or complete or request.app.state.peek else None,
        questions=QUESTIONS,
        invitation=f"/join/{store.fact('invitation')}" if store.fact("open", "") == "yes" else None,
    )


def _tally(request: Request) -> dict[str, dict[str, int]]:
    """Votes by question: for A, ties, for B."""
    return {
        question.key: {row["verdict"]: row["votes"] for row in store_of(request).rows(voting.TALLY, question.key)}
        for question in QUESTIONS
    }


def _ago(time: str | None) -> str:
    """How long ago something was, as people say it."""
    if time is None:
        return "–"  # noqa: RUF001
    seconds = (datetime.datetime.now(datetime.UTC) - datetime.datetime.fromisoformat(time)).total_seconds()
    for unit, size in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= size:
            count = int(seconds // size)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now"


def _check_owner(request: Request, token: str) -> None:
    if not hmac.compare_digest(store_of(request).fact("owner").encode(), token.encode()):
        raise HTTPException(404)
