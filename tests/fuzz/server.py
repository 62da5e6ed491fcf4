"""Requests to the rating server as a file: a JSON list of them, with placeholders for the links of the study."""

import asyncio
import tempfile
import urllib.parse
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from moslora.tasks.subject.rating.guard import signature
from moslora.tasks.subject.rating.serve import make_app, prepare
from moslora.tasks.subject.rating.store import Store

from ..tasks.subject.rating.studies import SECRET_A, SECRET_B, make_study

_UNSAID = (SECRET_A, SECRET_B, "<script>alert", "Traceback")


@cache
def _study() -> tuple[Store, dict[str, str], object]:
    """A study, what stands for the placeholders, and its folder, which is there as long as somebody holds it."""
    folder = tempfile.TemporaryDirectory()
    store = Store(make_study(Path(folder.name), prompts=2, seeds=(0,), size=32))
    links = prepare(store, "", raters=2, invite=True)
    rater, owner, invitation = (
        link.rsplit("/", 1)[1] for link in (links.raters[1], links.owner, str(links.invitation))
    )
    forms = {"csrf": rater, "owner_csrf": owner, "join_csrf": f"join/{invitation}"}
    names = {name: signature(store.secret, purpose) for name, purpose in forms.items()}
    picture = store.rows("SELECT id FROM pictures")[0]["id"]
    links_of = {"rater": rater, "owner": owner, "invitation": invitation, "picture": picture}
    return store, links_of | names, folder


def requests() -> list[Any]:
    """A rater who answers and takes back, a new one, and the owner."""
    form = {"content-type": "application/x-www-form-urlencoded"}

    def post(path: str, **fields: str) -> dict[str, Any]:
        return {"method": "POST", "path": path, "headers": form, "form": fields}

    def get(path: str) -> dict[str, Any]:
        return {"method": "GET", "path": path, "headers": {}, "form": {}}

    vote = {"csrf": "{csrf}", "place": "1", "question": "subject", "answer": "left"}
    return [
        [get("/r/{rater}"), post("/r/{rater}/begin", csrf="{csrf}"), post("/r/{rater}/vote", **vote)],
        [post("/r/{rater}/vote", **vote | {"question": "prompt"}), post("/r/{rater}/undo", csrf="{csrf}")],
        [get("/r/{rater}/p/{picture}"), get("/static/page.css"), get("/join/{invitation}")],
        [post("/join/{invitation}", csrf="{join_csrf}"), get("/owner/{owner}")],
        [post("/owner/{owner}/raters", csrf="{owner_csrf}", count="2")],
        [post("/owner/{owner}/end", csrf="{owner_csrf}", ended="yes")],
    ]


def ask_all(case: Any) -> None:
    """Send every request of a case that has the form of one; no answer may fail or tell what nobody may know."""
    store, names, _ = _study()
    store.set_fact("ended", "")
    app = make_app(store)
    for request in case if isinstance(case, list) else []:
        if isinstance(request, dict):
            status, headers, body = asyncio.run(_ask(app, request, names))
            assert status < 500, (status, body[:200])
            assert b"content-security-policy" in headers
            if not headers.get(b"content-type", b"").startswith(b"image/"):
                assert not [word for word in _UNSAID if word in body.decode(errors="replace")]


def _filled(value: Any, names: dict[str, str]) -> str:
    text = str(value)
    for name, each in names.items():
        text = text.replace(f"{{{name}}}", each)
    return text


async def _ask(app: FastAPI, request: dict[str, Any], names: dict[str, str]) -> tuple[int, dict[bytes, bytes], bytes]:
    """One request as a server hands it over: the path as bytes of ASCII and unquoted, headers as Latin-1."""
    path, _, query = _filled(request.get("path"), names).encode("utf-8", "surrogatepass").partition(b"?")
    raw = urllib.parse.quote(path, safe="/%:@!$&'()*+,;=").encode()
    fields, sent = request.get("form"), request.get("headers")
    pairs = {str(key): _filled(value, names) for key, value in (fields.items() if isinstance(fields, dict) else ())}
    body = urllib.parse.urlencode(pairs, errors="surrogatepass") if isinstance(fields, dict) else str(fields)
    headers = [
        (str(key).lower().encode("latin-1", "replace"), _filled(value, names).encode("latin-1", "replace"))
        for key, value in (sent.items() if isinstance(sent, dict) else ())
    ]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": str(request.get("method")).upper(),
        "scheme": "http",
        "path": urllib.parse.unquote(raw.decode()),
        "raw_path": raw,
        "query_string": urllib.parse.quote(query, safe="%=&").encode(),
        "headers": headers,
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    messages: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body.encode("utf-8", "surrogatepass"), "more_body": False}

    async def send(message: Any) -> None:
        messages.append(message)

    await app(scope, receive, send)
    return (
        messages[0]["status"],
        dict(messages[0]["headers"]),
        b"".join(message.get("body", b"") for message in messages),
    )
