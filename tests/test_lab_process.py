"""``python -m teachkit lab`` as a real program: what it opens, and how it ends."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from jupyter_client import BlockingKernelClient

from teachkit.course.setup import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to hand on")
# The environment of this test run stands in for .venv, which is set up elsewhere.
START = """
import sys
from pathlib import Path
from teachkit.course import cli
from teachkit.course.setup import Environment
Environment.ensure = lambda self: setattr(self, "python", Path(sys.executable))
sys.exit(cli.main(["lab", "--no-browser", "--ip=127.0.0.1", "--port=0", *sys.argv[1:]]))
"""
OPTION = "--IdentityProvider.token=x"


class Server:
    """A running ``lab`` with its learner's folder in ``home``."""

    def __init__(self, home, *words):
        self.home = home
        names = {"CONFIG": "c", "DATA": "d", "RUNTIME": "r"}
        dirs = {f"JUPYTER_{name}_DIR": str(home / sub) for name, sub in names.items()}
        env = os.environ | dirs | {"TEACHKIT_WORK": str(home / "work"), "PYTHONPATH": ""}
        with (home / "log").open("w") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", START, OPTION, *words],
                cwd=ROOT, env=env, stdout=log, stderr=log,
            )  # fmt: skip

    def info(self):
        """What the server says of itself, once it does."""
        return until(
            lambda: json.loads(next((self.home / "r").glob("jpserver-*.json")).read_text())
        )

    def ask(self, path, data=None):
        """Ask the server's own interface."""
        body = data and json.dumps(data).encode()
        headers = {"Authorization": "token x"}
        request = urllib.request.Request(self.info()["url"] + path, body, headers)
        return until(lambda: json.load(urllib.request.urlopen(request, timeout=30)))

    def kernel(self, code):
        """Start a kernel on the first lesson, let it run some code, and wait for its number."""
        notebook = {"path": "00_start.ipynb", "name": "", "type": "notebook"}
        self.ask("api/sessions", notebook | {"kernel": {"name": "python3"}})
        file = until(lambda: next((self.home / "r").glob("kernel-*.json")))
        client = BlockingKernelClient(connection_file=str(file))
        until(lambda: client.load_connection_file() or True)
        client.start_channels(hb=False)  # on a busy machine it takes a slow start for a death
        mark = self.home / "mark"
        client.execute(f"import os; open({str(mark)!r}, 'w').write(str(os.getpid()))\n{code}")
        number = until(lambda: int(mark.read_text()))
        client.stop_channels()
        return number


def until(look, seconds=60):
    """What ``look`` gives as soon as it raises nothing and gives something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError, StopIteration, KeyError):
            if found := look():
                return found
        time.sleep(0.1)
    raise AssertionError("waited in vain")


def runs(number):
    state = Path(f"/proc/{number}/stat")
    with contextlib.suppress(OSError):
        os.kill(number, 0)
        return not state.exists() or state.read_text().rpartition(")")[2].split()[0] != "Z"
    return False


@pytest.fixture
def lab(tmp_path):
    server = Server(tmp_path)
    yield server
    if server.process.poll() is None:
        server.process.terminate()
        server.process.wait(30)


BUSY = """
import time
while True:
    try:
        time.sleep(1)
    except BaseException:
        pass
"""


@pytest.mark.parametrize("code", ["", BUSY], ids=["idle", "busy"])
def test_sigterm_ends_the_server_and_its_kernels(code, lab):
    server, kernel = lab.info()["pid"], lab.kernel(code)
    assert runs(server)
    assert runs(kernel)
    lab.process.send_signal(signal.SIGTERM)
    assert lab.process.wait(30) == 0
    until(lambda: not runs(server) and not runs(kernel), 10)


def test_lab_serves_the_copies_and_git_sees_nothing_of_them(lab):
    assert lab.info()["root_dir"] == str(lab.home / "work")
    got = lab.ask("api/contents/02_taylor.ipynb")
    assert got["writable"]
    # The saved outputs are trusted: JupyterLab runs their scripts before the first run.
    outputs = [cell for cell in got["content"]["cells"] if cell.get("outputs")]
    assert outputs
    assert all(cell["metadata"]["trusted"] for cell in outputs)
    assert (lab.home / "work" / ".jupyterlab").is_dir()
    ignored = subprocess.run(["git", "check-ignore", "work/02_taylor.ipynb"], cwd=ROOT)
    assert ignored.returncode == 0


def test_a_save_that_was_cut_off_is_mended_when_the_notebook_is_opened(lab):
    """JupyterLab writes into the file and has a copy aside meanwhile; a kill may leave half."""
    lab.info()
    work = lab.home / "work"
    whole = (work / "02_taylor.ipynb").read_bytes().replace(b"Taylor", b"Tailor")
    (work / ".~02_taylor.ipynb").write_bytes(whole)
    (work / "02_taylor.ipynb").write_bytes(whole[:1000])
    lab.ask("api/contents/02_taylor.ipynb")
    assert (work / "02_taylor.ipynb").read_bytes() == whole


def test_an_unknown_lesson_to_reset_opens_nothing(tmp_path):
    server = Server(tmp_path, "--reset", "99")
    assert server.process.wait(60) == 1
    assert "There is no lesson '99' to reset; there are 00_start" in (tmp_path / "log").read_text()
    assert not list(tmp_path.glob("r/jpserver*"))
