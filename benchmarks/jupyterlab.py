"""JupyterLab on a port of its own, started as ``python -m teachkit lab`` starts it, and Chromium.

Measurements and tests open it here alone.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

from teachkit.course import jupyter
from teachkit.course.chromium import FLAGS as FLAGS
from teachkit.course.chromium import NAMES
from teachkit.course.setup import ROOT

CHROME = next(filter(None, map(shutil.which, NAMES)), None)
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


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class Server:
    """A course opened in JupyterLab; ``home`` keeps what JupyterLab keeps of its user.

    ``work`` is the learner's folder, None the course's own; ``words`` go to the command.
    """

    def __init__(self, home: Path, course: Path = ROOT, work: Path | None = None, *words: str):
        self.home, self.course = home, course
        self.work = work or course / "work"
        self.token, port = secrets.token_hex(16), free_port()
        self.url = f"http://127.0.0.1:{port}"
        jupyter.settle(home)
        settings = home / "share" / "jupyter" / "lab" / "settings"
        self.options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}"]
        self.options += ["--ServerApp.port_retries=0", f"--IdentityProvider.token={self.token}"]
        self.options += ["--LabApp.expose_app_in_browser=True"]
        self.options += [f"--LabApp.app_settings_dir={settings}", *words]
        own = {name: str(home / folder) for name, folder in OWN.items()}
        self.env = os.environ | own | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(course)}
        self.env.pop("TEACHKIT_WORK", None)
        if work:
            self.env["TEACHKIT_WORK"] = str(work)

    @property
    def log(self) -> Path:
        """What the command has printed."""
        return self.home / "log"

    @property
    def runtime(self) -> Path:
        """Where JupyterLab says of itself and of its kernels where they are."""
        return self.home / OWN["JUPYTER_RUNTIME_DIR"]

    def begin(self) -> None:
        """Start, and do not wait."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", LAB, *self.options],
                cwd=self.course, stdout=log, stderr=log, env=self.env, start_new_session=True,
            )  # fmt: skip

    def start(self) -> None:
        """Start, and come back when it answers."""
        self.begin()
        for _ in range(600):
            with contextlib.suppress(OSError):
                self.ask("/api")
                return
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        raise RuntimeError(f"JupyterLab did not start:\n{self.log.read_text()}")

    def info(self) -> dict[str, Any]:
        """What a server that answers says of itself: its process, its folder."""
        made: dict[str, Any] = json.loads(next(self.runtime.glob("jpserver-*.json")).read_bytes())
        return made

    def ask(self, path: str, method: str = "GET", content: Any = None) -> Any:
        """What the server answers; None where it answers nothing."""
        body = None if content is None else json.dumps(content).encode()
        request = urllib.request.Request(self.url + path, body, method=method)  # noqa: S310 -- ours
        request.add_header("Authorization", f"token {self.token}")
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            said = answer.read()
        return json.loads(said) if said else None

    def shut(self) -> None:
        """End every session: a kernel takes half a gigabyte."""
        for session in self.ask("/api/sessions"):
            self.ask(f"/api/sessions/{session['id']}", "DELETE")

    def address(self, path: str) -> str:
        """Where a browser opens a file of the folder that JupyterLab shows, in a layout of its own."""
        return f"{self.url}/lab/tree/{path}?token={self.token}"

    def stop(self) -> None:
        """End it as a terminal does that is closed."""
        if self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(30)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def kill(self) -> None:
        """End it and all that it has started, at once; kernels notice by themselves."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(30)
