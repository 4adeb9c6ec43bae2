"""Run notebooks on a kernel that is watched, and compare their pictures, too.

The death of the kernel is noticed, and no message of it is lost.
"""

import os
import time
from collections import deque
from contextlib import suppress
from queue import Empty

import pytest
from hypothesis import Phase, settings
from nbval.kernel import RunningKernel
from nbval.plugin import IPyNbCell, IPyNbFile

os.environ["TQDM_DISABLE"] = "1"  # no progress bar in a test or in a notebook that is compared
os.environ["TEACHKIT_WORK"] = ""  # no test and no kernel of one keeps a learner's progress

# The same examples for everyone; look for new ones with --hypothesis-profile=explore.
PHASES = [phase for phase in Phase if phase is not Phase.explain]
settings.register_profile("course", deadline=None, derandomize=True, max_examples=50, phases=PHASES)
settings.register_profile("explore", deadline=None, max_examples=1000, phases=PHASES)
settings.load_profile("course")


class KernelDiedError(RuntimeError):
    """The kernel process is gone."""


class WatchedKernel(RunningKernel):
    """A kernel that nbval has started, with its messages drained while a cell runs.

    nbval alone waits 2000 seconds for a kernel that has died, and reads the output only after the
    reply: of thousands of messages the queue between the processes has dropped some by then.
    """

    def __init__(self, started):  # not RunningKernel's: the kernel runs already
        self.km, self.kc = started.km, started.kc
        self.drained = deque()
        self._queue_all()

    def _queue_all(self):
        """Connect anew for the output with a queue without limit: beyond 1000 messages zmq drops."""
        socket = self.kc.iopub_channel.socket
        place = socket.LAST_ENDPOINT
        socket.disconnect(place)
        socket.rcvhwm = 0
        socket.connect(place)
        for _ in range(60):  # until the kernel has noticed
            asked = self.kc.kernel_info()
            with suppress(Empty):
                while True:
                    message = super().get_message("iopub", timeout=1)
                    idle = message["content"].get("execution_state") == "idle"
                    if idle and message["parent_header"].get("msg_id") == asked:
                        return
        raise KernelDiedError("the kernel does not answer")

    def get_message(self, stream, timeout=None):
        """Hand out what was drained first."""
        if stream == "iopub" and self.drained:
            return self.drained.popleft()
        return super().get_message(stream, timeout=timeout)

    def await_reply(self, msg_id, timeout=None):
        """Wait as nbval does, but drain the output meanwhile and fail when the kernel has died."""
        end = time.monotonic() + timeout if timeout is not None else float("inf")
        while True:
            try:
                reply = super().get_message("shell", timeout=0)
            except Empty:
                if time.monotonic() > end:
                    raise
                if not self._drain(wait=0.05) and not self.is_alive():
                    raise KernelDiedError("the kernel died while it ran this cell") from None
                continue
            if reply["parent_header"].get("msg_id") == msg_id:
                return

    def _drain(self, wait):
        """Keep what the kernel says, from its next message on; how many messages there were."""
        before = len(self.drained)
        try:
            while True:
                self.drained.append(super().get_message("iopub", timeout=wait))
                wait = 0
        except Empty:
            return len(self.drained) - before


class Cell(IPyNbCell):
    """nbval's cell; nbval skips pictures, this one compares them."""

    def compare_outputs(self, test, ref, skip_compare=None):
        """Compare the text as nbval does, then what is drawn with what is saved."""
        from teachkit.course import pictures

        same = super().compare_outputs(test, ref, skip_compare)
        problems = pictures.problems(ref, test)
        self.comparison_traceback += problems
        return same and not problems


class Notebook(IPyNbFile):
    """nbval's notebook on a watched kernel."""

    def setup(self):
        """Start as nbval does, then watch."""
        super().setup()
        self.kernel = WatchedKernel(self.kernel)

    def collect(self):
        """Collect nbval's cells as ours."""
        for each in super().collect():
            about = {"cell_num": each.cell_num, "cell": each.cell, "options": each.options}
            yield Cell.from_parent(self, name=each.name, **about)


@pytest.hookimpl(wrapper=True)
def pytest_collect_file(file_path, parent):
    """Collect as Notebook what nbval would collect."""
    collectors = yield
    return [
        Notebook.from_parent(parent, path=file_path) if isinstance(one, IPyNbFile) else one
        for one in collectors
    ]


def pytest_collection_modifyitems(items):
    """On a busy machine the last output of a cell may come long after its reply."""
    for item in items:
        if hasattr(item, "output_timeout"):
            item.output_timeout = 60


@pytest.fixture
def bars_at_once(monkeypatch):
    """Progress bars on, without their delay, as in a terminal."""
    from teachkit.core import bars

    monkeypatch.delenv("TQDM_DISABLE")
    monkeypatch.setattr(bars, "DELAY", 0)
    monkeypatch.setattr(bars, "_terminal", lambda: True)


@pytest.fixture(autouse=True)
def _session(request):
    """Every Python test starts from the course's own settings, as a notebook does."""
    if isinstance(request.node, IPyNbCell):
        return
    from teachkit import lab

    lab.setup()
