"""``python -m teachkit lab`` as a real program: what it opens, and how it ends."""

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest
from jupyter_client import BlockingKernelClient

from benchmarks.jupyterlab import Server
from teachkit.course.setup import ROOT

pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no signals to hand on")


def kernel(lab, code):
    """Start a kernel on the first lesson, let it run some code, and wait for its number."""
    notebook = {"path": "00_start.ipynb", "name": "", "type": "notebook"}
    lab.ask("/api/sessions", "POST", notebook | {"kernel": {"name": "python3"}})
    file = until(lambda: next(lab.runtime.glob("kernel-*.json")))
    client = BlockingKernelClient(connection_file=str(file))
    until(lambda: client.load_connection_file() or True)
    client.start_channels(hb=False)  # on a busy machine it takes a slow start for a death
    mark = lab.home / "mark"
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
    server = Server(tmp_path, ROOT, tmp_path / "work")
    server.start()
    yield server
    server.stop()


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
    server, number = lab.info()["pid"], kernel(lab, code)
    assert runs(server)
    assert runs(number)
    lab.process.send_signal(signal.SIGTERM)
    assert lab.process.wait(30) == 0
    until(lambda: not runs(server) and not runs(number), 10)


def test_lab_serves_the_copies_and_git_sees_nothing_of_them(lab):
    assert lab.info()["root_dir"] == str(lab.home / "work")
    got = lab.ask("/api/contents/02_taylor.ipynb")
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
    work = lab.home / "work"
    whole = (work / "02_taylor.ipynb").read_bytes().replace(b"Taylor", b"Tailor")
    (work / ".~02_taylor.ipynb").write_bytes(whole)
    (work / "02_taylor.ipynb").write_bytes(whole[:1000])
    lab.ask("/api/contents/02_taylor.ipynb")
    assert (work / "02_taylor.ipynb").read_bytes() == whole


def test_an_unknown_lesson_to_reset_opens_nothing(tmp_path):
    server = Server(tmp_path, ROOT, tmp_path / "work", "--reset", "99")
    server.begin()
    assert server.process.wait(60) == 1
    assert "There is no lesson '99' to reset; there are 00_start" in server.log.read_text()
    assert not list(server.runtime.glob("jpserver*"))
