"""Serve a study: create raters, print their links, answer until told to stop."""

import dataclasses
import socket
from typing import TYPE_CHECKING

from ....errors import ConfigError, UnsupportedError
from .store import Store

if TYPE_CHECKING:
    from fastapi import FastAPI

BACKLOG = 2048  # connections that may wait


@dataclasses.dataclass(frozen=True)
class Links:
    """Addresses of a study, complete and secret."""

    owner: str
    raters: dict[int, str]  # number of the rater -> link
    invitation: str | None


def make_app(store: Store, peek: bool = False) -> "FastAPI":
    """The web application of a study.

    Raises:
        UnsupportedError: a package that only it needs is missing.
    """
    try:
        import python_multipart  # noqa: F401
        import uvicorn  # noqa: F401

        from .web import create_app
    except ModuleNotFoundError as error:
        raise UnsupportedError(
            f"The rating page needs {error.name}, which is not installed: pip install 'moslora[rating]'."
        ) from None
    return create_app(store, peek)


def prepare(store: Store, base: str, raters: int = 0, more: int = 0, invite: bool = False) -> Links:
    """Create the raters that are missing, and the links of all.

    Args:
        store: of the study.
        base: address under which raters reach the server, without a slash at the end.
        raters: the study has at least so many.
        more: so many new ones in any case.
        invite: let whoever has the invitation become a rater; otherwise invitations are closed.
    """
    missing = max(0, raters - len(store.raters())) + more
    if missing:
        store.add_raters(missing)
    store.set_fact("open", "yes" if invite else "")
    return Links(
        owner=f"{base}/owner/{store.fact('owner')}",
        raters={rater.id: f"{base}/r/{rater.token}" for rater in store.raters()},
        invitation=f"{base}/join/{store.fact('invitation')}" if invite else None,
    )


def listen(host: str, port: int) -> socket.socket:
    """A socket that waits for connections; port 0 takes a free one.

    Raises:
        ConfigError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        found.listen(BACKLOG)  # a link may be opened as soon as it is printed, before the server is at work
    except OSError as error:
        found.close()
        raise ConfigError(f"Cannot listen at {host}, port {port}: {error}. Choose another --host or --port.") from None
    return found


def run(app: "FastAPI", listening: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM; requests at work are finished first."""
    import uvicorn

    config = uvicorn.Config(
        app,
        log_level="warning",
        access_log=False,  # addresses are keys
        server_header=False,
        timeout_graceful_shutdown=10,
        limit_concurrency=1000,
    )
    uvicorn.Server(config).run(sockets=[listening])


def address(host: str, port: int) -> str:
    """Where a browser finds a server that listens there; of one that listens everywhere, by the machine's name."""
    name = socket.gethostname() if host in ("0.0.0.0", "::") else f"[{host}]" if ":" in host else host
    return f"http://{name}:{port}"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server there."""
    return host in ("localhost", "::1") or host.startswith("127.")
