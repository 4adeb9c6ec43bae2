"""JupyterLab on a port of its own, started as ``python -m teachkit lab`` starts it."""

import contextlib
import json
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

from teachkit.course import jupyter
from teachkit.course.setup import ROOT

# The command itself, on the packages of this Python: a copy of the course has no .venv of its own,
# and PYTHONPATH says to the kernels whose teachkit it is.
LAB = """
import sys
from pathlib import Path
from teachkit.course import cli, processes

class Ready(cli.Environment):
    python = Path(sys.executable)
    def __init__(self, root, *, constrained=True):
        self.root = root
    def ensure(self):
        pass

cli.Environment, processes.FOREIGN = Ready, ()
sys.exit(cli.main(["lab", *sys.argv[1:]]))
"""
OWN = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "IPYTHONDIR": "ipython",
}


def free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


class Server:
    """A course opened in JupyterLab; ``home`` keeps what JupyterLab keeps of its user.

    ``work`` is the learner's folder, None the course's own.
    """

    def __init__(self, home: Path, course: Path = ROOT, work: Path | None = None):
        self.home, self.course = home, course
        self.work = work or course / "work"
        self.token, port = secrets.token_hex(16), free_port()
        self.url = f"http://127.0.0.1:{port}"
        jupyter.settle(home)
        settings = home / "share" / "jupyter" / "lab" / "settings"
        self.options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}"]
        self.options += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"]
        self.options += ["--LabApp.expose_app_in_browser=True"]
        self.options += [f"--LabApp.app_settings_dir={settings}"]
        own = {name: str(home / folder) for name, folder in OWN.items()}
        self.env = os.environ | own | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(course)}
        self.env.pop("TEACHKIT_WORK", None)
        if work:
            self.env["TEACHKIT_WORK"] = str(work)

    @property
    def log(self) -> Path:
        return self.home / "log"

    def begin(self):
        """Start, and do not wait."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAB, *self.options],
                cwd=self.course, stdout=log, stderr=log, env=self.env, start_new_session=True,
            )  # fmt: skip

    def start(self):
        """Start, and come back when it answers."""
        self.begin()
        for _ in range(600):
            with contextlib.suppress(OSError):
                self.ask("/api")
                return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.1)
        raise AssertionError(f"no answer after a minute:\n{self.log.read_text()}")

    def ask(self, path, method="GET", content=None):
        """What the server answers; None where it answers nothing."""
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, body, method=method)
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=30) as answer:
            said = answer.read()
        return json.loads(said) if said else None

    def shut(self):
        """End every session: a kernel takes half a gigabyte."""
        for session in self.ask("/api/sessions"):
            self.ask(f"/api/sessions/{session['id']}", "DELETE")

    def address(self, path):
        """Where a browser opens a file of the folder that JupyterLab shows, in a layout of its own."""
        return f"{self.url}/lab/tree/{path}?token={self.token}"

    def stop(self):
        """End it as a terminal does that is closed."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def kill(self):
        """End it and all that it has started, at once; kernels notice by themselves."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
