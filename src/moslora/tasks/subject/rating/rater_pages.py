"""Pages of a rater: what is asked, the pairs one after another, thanks."""

import hmac
from typing import Annotated, Literal

from fastapi import APIRouter, Form, Request
from fastapi.responses import HTMLResponse, Response
from starlette.exceptions import HTTPException

from ....errors import ConfigError
from . import voting
from .guard import signature
from .pages import Csrf, check_form, go_to, render, store_of
from .questions import QUESTIONS, minutes
from .store import Rater

router = APIRouter()


@router.get("/")
def front(request: Request) -> Response:
    """Says nothing: every rater has a link."""
    return render(request, "message", words="Please use the link that you were given.")


@router.get("/join/{invitation}")
def invitation_page(request: Request, invitation: str) -> Response:
    """What is asked, before somebody becomes a rater."""
    _check_invitation(request, invitation)
    return _introduction(request, f"/join/{invitation}", f"join/{invitation}")


@router.post("/join/{invitation}")
def join(request: Request, invitation: str, csrf: Csrf) -> Response:
    """Make a rater, and lead to the new personal link."""
    _check_invitation(request, invitation)
    check_form(request, f"join/{invitation}", csrf)
    if not request.app.state.joining.allows(request.client.host if request.client else ""):
        raise HTTPException(429)
    store = store_of(request)
    try:
        rater = store.add_raters(1)[0]
    except ConfigError:
        raise HTTPException(409) from None
    store.begin(rater)
    return go_to(request, f"/r/{rater.token}")


@router.get("/r/{token}")
def page(request: Request, token: str) -> Response:
    """Where the rater is: the first page, a pair, or the end."""
    return _page(request, _rater(request, token))


@router.post("/r/{token}/begin")
def begin(request: Request, token: str, csrf: Csrf) -> Response:
    """Go on from the first page."""
    rater = _rater(request, token)
    check_form(request, token, csrf)
    store_of(request).begin(rater)
    return go_to(request, f"/r/{token}")


@router.post("/r/{token}/vote")
def vote(
    request: Request,
    token: str,
    csrf: Csrf,
    place: Annotated[int, Form(ge=1, le=10_000_000)],
    question: Annotated[Literal["subject", "prompt"], Form()],
    answer: Annotated[Literal["left", "tie", "right"], Form()],
) -> Response:
    """Keep an answer; the reply is where the rater is then, and comes only once the answer is on the disk."""
    rater = _rater(request, token)
    check_form(request, token, csrf)
    if not rater.begun:
        raise HTTPException(400)
    kept = voting.vote(store_of(request), rater, place, question, answer)
    notice = "" if kept else "That pair was answered before, perhaps in another window. This is where you are."
    return go_to(request, f"/r/{token}", _page(request, rater, notice))


@router.post("/r/{token}/undo")
def undo(request: Request, token: str, csrf: Csrf) -> Response:
    """Take the last answer back."""
    rater = _rater(request, token)
    check_form(request, token, csrf)
    taken = voting.undo(store_of(request), rater)
    return go_to(request, f"/r/{token}", _page(request, rater, "Your last answer was taken back." if taken else ""))


@router.get("/r/{token}/p/{picture}")
def picture(request: Request, token: str, picture: str) -> Response:
    """A picture, by the random name that the database knows."""
    _rater(request, token)
    path = store_of(request).picture(picture)
    if path is None or not path.is_file():
        raise HTTPException(404)
    # Bytes, not a FileResponse: when and in which order the files were made is nobody's business.
    headers = {"Cache-Control": "private, max-age=86400, immutable"}
    return Response(path.read_bytes(), media_type="image/webp", headers=headers)


def _page(request: Request, rater: Rater, notice: str = "") -> HTMLResponse:
    store, home = store_of(request), f"/r/{rater.token}"
    if store.ended:
        return render(request, "message", words="This study has ended. Thank you: every answer you gave is kept.")
    if not rater.begun:
        return _introduction(request, f"{home}/begin", rater.token)
    csrf = signature(store.secret, rater.token)
    turn = voting.turn(store, rater)
    if turn is None:
        return render(request, "done", home=home, csrf=csrf, notice=notice)
    questions = sorted(QUESTIONS, key=lambda question: rater.questions.index(question.key))
    after = voting.turn(store, rater, turn.place + 1)
    return render(
        request,
        "pair",
        home=home,
        csrf=csrf,
        notice=notice,
        turn=turn,
        questions=questions,
        waiting=next(question.key for question in questions if question.key not in turn.answers),
        preload=[*after.photographs, after.left.id, after.right.id] if after else [],
    )


def _introduction(request: Request, action: str, purpose: str) -> HTMLResponse:
    store = store_of(request)
    pairs = store.rows("SELECT count(*) AS pairs FROM items")[0]["pairs"]
    csrf = signature(store.secret, purpose)
    return render(
        request, "introduction", action=action, csrf=csrf, pairs=pairs, minutes=minutes(pairs), questions=QUESTIONS
    )


def _rater(request: Request, token: str) -> Rater:
    rater = store_of(request).rater(token)
    if rater is None:
        raise HTTPException(404)
    return rater


def _check_invitation(request: Request, invitation: str) -> None:
    store = store_of(request)
    right = hmac.compare_digest(store.fact("invitation").encode(), invitation.encode())
    if not right or store.ended or store.fact("open", "") != "yes":
        raise HTTPException(404)
