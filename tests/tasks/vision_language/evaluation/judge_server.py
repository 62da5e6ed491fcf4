"""A judge on this machine that does as it is told: replies, refuses, stalls, or talks nonsense."""

import contextlib
import http.server
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

Action = str | int | tuple[int, dict[str, str]] | float | bytes


class JudgeServer:
    """Where it listens, and what it was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str | None] = []

    @property
    def prompts(self) -> list[str]:
        """The texts it was asked, in order."""
        return [request["messages"][0]["content"] for request in self.requests]


@contextlib.contextmanager
def judge_server(act: Callable[[int, str], Action]) -> Iterator[JudgeServer]:
    """A server in a thread.

    Args:
        act: number of the request and its prompt -> what to do: reply with a text; refuse with a status, perhaps with
            headers; stall for so many seconds (a float); send bytes in place of a completion.
    """
    judge = JudgeServer()
    lock = threading.Lock()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                judge.requests.append({**body, "path": self.path})
                judge.keys.append(self.headers.get("Authorization"))
                action = act(len(judge.requests), body["messages"][0]["content"])
            status, headers, content = 200, {}, b""
            match action:
                case float():
                    time.sleep(action)
                case str():
                    content = json.dumps({"choices": [{"message": {"content": action}}]}).encode()
                case bytes():
                    content = action
                case (status, headers):
                    content = b"try later"
                case int():
                    status, content = action, f"refused {self.headers.get('Authorization')}".encode()
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    judge.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    try:
        yield judge
    finally:
        server.shutdown()
        server.server_close()
