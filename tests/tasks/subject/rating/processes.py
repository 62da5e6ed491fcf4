"""`moslora rate serve` as a process of its own, on the loopback interface."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

CODE = "import sys; from moslora.cli import main; sys.exit(main())"


class Server:
    """A running server; `links` are the raters' addresses."""

    def __init__(self, study, *options):
        self.process = subprocess.Popen(
            [sys.executable, "-c", CODE, "rate", "serve", str(study), "--port", "0", *map(str, options)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            # A process started in the background ignores Ctrl-C, and so would its children.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[4] / "src"), "OMP_NUM_THREADS": "1"},
        )
        printed = []
        for line in self.process.stdout:
            printed.append(line.strip())
            if line.startswith("owner"):
                break
        assert printed, "the server printed nothing"
        assert printed[-1].startswith("owner"), printed
        self.owner = printed[-1].rpartition(": ")[2]
        self.links = [line.rpartition(": ")[2] for line in printed if line.startswith("rater ")]
        self.invitation = next((line.rpartition(": ")[2] for line in printed if line.startswith("invitation")), None)
        self.base = self.owner.partition("/owner")[0]

    def kill(self):
        """As a power cut would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(20)

    def stop(self, how=signal.SIGINT):
        """Ask it to stop; returns what it printed last."""
        self.process.send_signal(how)
        return self.process.communicate(timeout=20)[0]


@contextlib.contextmanager
def serving(study, *options):
    """A server that is gone after the block, whatever happens."""
    server = Server(study, *options)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.kill()
        server.process.stdout.close()
