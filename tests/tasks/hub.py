"""A hub on this machine that serves one model folder, and may lose the connection in the middle of its weights."""

import contextlib
import hashlib
import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Handler(http.server.BaseHTTPRequestHandler):
    folder: Path
    cut: bool
    times_cut: int

    def do_GET(self) -> None:
        """A file, or what is known of the model."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """The same without the body."""
        self._answer(with_body=False)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, with_body: bool) -> None:
        parts = self.path.partition("?")[0].strip("/").split("/")
        files = {path.name: path for path in self.folder.iterdir()}
        if parts[0] == "api":
            listed = [
                {"type": "file", "oid": "0", "path": name, "size": path.stat().st_size} for name, path in files.items()
            ]
            about = {"id": "stranger/small", "sha": COMMIT, "siblings": [{"rfilename": name} for name in files]}
            content = json.dumps(listed if "tree" in parts else about).encode()
            self.send_response(200)
        elif len(parts) == 5 and parts[-1] in files:
            content = files[parts[-1]].read_bytes()
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
            self.send_response(206 if start else 200)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            if start:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            content = content[start:]
        else:
            content = b""
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if not with_body:
            return
        if self.cut and parts[-1].endswith(".safetensors"):
            type(self).times_cut += 1
            content = content[: len(content) // 2]
        self.wfile.write(content)


@contextlib.contextmanager
def hub(folder: Path) -> Iterator[tuple[str, type[_Handler]]]:
    """Address of a hub with the model `stranger/small`, and its handler, whose `cut` loses the connection."""
    handler = type("Handler", (_Handler,), {"folder": folder, "cut": False, "times_cut": 0})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", handler
        finally:
            server.shutdown()
            thread.join()
