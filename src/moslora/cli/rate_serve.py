"""Serve a rating study to raters.

    moslora rate serve study --raters 15

Prints a link for every rater and one for the owner, who sees how far everybody is. Votes are on the disk before a rater
is told so; Ctrl-C stops, and the same command goes on. Only this machine reaches the page unless --host says otherwise:
docs/rating.md tells how to host it for others safely.
"""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro


@dataclasses.dataclass(frozen=True, kw_only=True)
class Command:
    """Arguments of `moslora rate serve`."""

    study: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """Folder that `moslora rate build` has made."""
    raters: int = 0
    """Have at least so many raters; those there are keep their links."""
    add: int = 0
    """Create so many more raters."""
    open: bool = False
    """Print an invitation: whoever has this link may take part, and gets a personal link."""
    host: str = "127.0.0.1"
    """Address to listen at; 0.0.0.0 is every network of this machine."""
    port: int = 8000
    """Port to listen at; 0 takes a free one."""
    url: str | None = None
    """Address that raters use, where it is another than host and port, such as https://rating.example.org."""
    peek: bool = False
    """Show the owner results before the study has ended."""

    def run(self) -> None:
        """Print the links, then answer until told to stop."""
        from ..errors import ConfigError
        from ..tasks.subject.rating import serve
        from ..tasks.subject.rating.store import Store

        if min(self.raters, self.add) < 0:
            raise ConfigError("--raters and --add count raters: give 0 or more.")
        store = Store(self.study)
        app = serve.make_app(store, self.peek)
        listening = serve.listen(self.host, self.port)
        host, port = listening.getsockname()[:2]
        base = (self.url or serve.address(host, port)).rstrip("/")
        links = serve.prepare(store, base, self.raters, self.add, self.open)
        for number, link in links.raters.items():
            print(f"rater {number}: {link}")
        if links.invitation:
            print(f"invitation: {links.invitation}")
        if not links.raters and not links.invitation:
            print("no raters yet: add them on the owner's page, or with --raters N or --open")
        print(f"owner (keep it secret): {links.owner}", flush=True)
        if not serve.is_loopback(self.host) and not (self.url or "").startswith("https://"):
            print(
                "warning: others on the network can read what passes; put HTTPS in front (docs/rating.md)", flush=True
            )
        try:
            serve.run(app, listening)
        except KeyboardInterrupt:
            print(f"stopped; every vote is kept. next: moslora rate score {self.study}")
