"""Make nbval notice a dead kernel at once, and keep every message of a talkative cell."""

import time
from collections import deque
from queue import Empty

import pytest
from hypothesis import Phase, settings
from nbval.kernel import RunningKernel

# The same examples for everyone; look for new ones with --hypothesis-profile=explore.
PHASES = [phase for phase in Phase if phase is not Phase.explain]
settings.register_profile("course", deadline=None, derandomize=True, max_examples=50, phases=PHASES)
settings.register_profile("explore", deadline=None, max_examples=1000, phases=PHASES)
settings.load_profile("course")

_receive = RunningKernel.get_message


class KernelDiedError(RuntimeError):
    """The kernel process is gone."""


def _waiting(kernel):
    return kernel.__dict__.setdefault("_waiting_messages", deque())


def get_message(self, stream, timeout=None):
    """Hand out messages that were drained while waiting, then ask nbval."""
    if stream == "iopub" and _waiting(self):
        return _waiting(self).popleft()
    return _receive(self, stream, timeout=timeout)


def await_reply(self, msg_id, timeout=None):
    """Wait as nbval does, but drain the output meanwhile and fail when the kernel has died."""
    end = time.monotonic() + timeout if timeout is not None else float("inf")
    while True:
        try:
            while True:
                _waiting(self).append(_receive(self, "iopub", timeout=0))
        except Empty:
            pass
        try:
            reply = _receive(self, "shell", timeout=0.05)
        except Empty:
            if not self.is_alive():
                raise KernelDiedError("the kernel died while it ran this cell") from None
            if time.monotonic() > end:
                raise
            continue
        if reply["parent_header"].get("msg_id") == msg_id:
            return


RunningKernel.get_message = get_message
RunningKernel.await_reply = await_reply


@pytest.fixture(autouse=True)
def _session(request):
    """Every Python test starts from the course's own settings, as a notebook does."""
    if type(request.node).__name__ == "IPyNbCell":
        return
    from teachkit import lab

    lab.setup()
