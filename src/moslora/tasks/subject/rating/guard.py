"""What stands before every request: size, origin and rate; and the headers that every answer carries."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LARGEST_BODY = 16 * 1024  # bytes; a vote has about 200
SLOWEST_BODY = 10  # seconds
MOST_KEYS = 10_000

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # The address of a page is its key: no other site may read it from a Referer.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "X-Robots-Tag": "noindex, nofollow",
}


class Limiter:
    """A bucket for each key: `burst` actions at once, refilled at `rate` a second."""

    def __init__(self, burst: int, rate: float) -> None:
        self.burst = burst
        self.rate = rate
        self._buckets: dict[str, tuple[float, float]] = {}  # key -> actions left, and when that was

    def allows(self, key: str) -> bool:
        """Whether one more action is within the limit; takes it if it is."""
        now = time.monotonic()
        left, since = self._buckets.get(key, (float(self.burst), now))
        left = min(float(self.burst), left + self.rate * (now - since))
        if len(self._buckets) >= MOST_KEYS:
            self._buckets.clear()  # a flood of keys; better to forget than to grow
        self._buckets[key] = (left - 1 if left >= 1 else left, now)
        return left >= 1


class Guard:
    """ASGI middleware around the whole application."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.actions = Limiter(burst=40, rate=5)  # votes of one token; a person gives fewer than one a second
        self.misses = Limiter(burst=60, rate=0.5)  # by client: addresses that do not exist, such as guessed tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        client = scope["client"][0] if scope.get("client") else ""
        respond = _with_headers(send, lambda: self.misses.allows(client))
        refusal = self._refusal(scope)
        if refusal is None and scope["method"] == "POST":
            body = await _body(receive)
            if body is None:
                refusal = (413, f"Too large: a request has at most {LARGEST_BODY} bytes.")
            else:
                receive = _replay(body, receive)
        if refusal is None:
            await self.app(scope, receive, respond)
            return
        headers = {"Connection": "close"} | ({"Retry-After": "2"} if refusal[0] == 429 else {})
        await PlainTextResponse(refusal[1], refusal[0], headers)(scope, receive, respond)

    def _refusal(self, scope: Scope) -> tuple[int, str] | None:
        """Status and words for a request that is not let in; None for one that is."""
        if scope["method"] != "POST":
            return None
        headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        if headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return 403, "This form was sent from another site."
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > LARGEST_BODY:
            return 413, f"Too large: a request has at most {LARGEST_BODY} bytes."
        if not self.actions.allows("/".join(scope["path"].split("/")[:3])):
            return 429, "Too many requests. Please wait a moment."
        return None


def signature(secret: bytes, purpose: str) -> str:
    """What proves that a form was made by this server, for one token."""
    return hmac.new(secret, purpose.encode(), hashlib.sha256).hexdigest()


def signed(secret: bytes, purpose: str, found: str) -> bool:
    """Whether a form carries the signature of its purpose."""
    return hmac.compare_digest(signature(secret, purpose).encode(), found.encode())


async def _body(receive: Receive) -> bytes | None:
    """The whole body; None if it is too large, whatever its headers said, or does not come."""
    body, more = b"", True
    try:
        async with asyncio.timeout(SLOWEST_BODY):
            while more:
                message = await receive()
                body += message.get("body", b"")
                more = message.get("more_body", False)
                if len(body) > LARGEST_BODY:
                    return None
    except TimeoutError:
        return None
    return body


def _replay(body: bytes, receive: Receive) -> Receive:
    """Hand out a body that was read already, then whatever else comes."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def replayed() -> Message:
        return waiting.pop() if waiting else await receive()

    return replayed


def _with_headers(send: Send, may_miss: Callable[[], bool]) -> Send:
    """Add the headers that every answer carries, and slow down whoever tries many addresses that do not exist.

    Addresses that do exist are always served: others may share that client's network address.
    """

    async def respond(message: Message) -> None:
        if message["type"] == "http.response.start":
            if message["status"] == 404 and not may_miss():
                message["status"] = 429
            present = {name.lower() for name, _ in message["headers"]}
            added = dict(HEADERS)
            if b"cache-control" not in present:
                added["Cache-Control"] = "no-store"
            message["headers"] = [
                *message["headers"],
                *((name.lower().encode(), value.encode()) for name, value in added.items()),
            ]
        await send(message)

    return respond
