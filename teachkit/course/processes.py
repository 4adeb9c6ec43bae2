"""The programs that the course starts: what they inherit, and how they end with us.

Standard library only, because this runs before anything is installed.
"""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType

# What makes a Python import or run something else than what stands in .venv.
FOREIGN = (
    "PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONSAFEPATH", "PYTHONOPTIMIZE",
    "PYTHONINSPECT", "PYTHONWARNINGS",
)  # fmt: skip
# What tells pip where packages come from, and how to get there; never where they go to, or whether.
SOURCES = (
    "CACHE_DIR", "CERT", "CLIENT_CERT", "CONFIG_FILE", "DEFAULT_TIMEOUT", "DISABLE_PIP_VERSION_CHECK",
    "EXTRA_INDEX_URL", "FIND_LINKS", "INDEX_URL", "KEYRING_PROVIDER", "LOG", "NO_CACHE_DIR", "NO_COLOR",
    "NO_INDEX", "NO_INPUT", "PROGRESS_BAR", "PROXY", "RESUME_RETRIES", "RETRIES", "ROOT_USER_ACTION",
    "TIMEOUT", "TRUSTED_HOST", "USE_DEPRECATED", "USE_FEATURE", "VERBOSE",
)  # fmt: skip
SIGNALS = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


def ignored(given: Mapping[str, str]) -> dict[str, str]:
    """The variables that would make the course run on other packages, or pip install elsewhere.

    >>> ignored({"PYTHONPATH": "/x", "PIP_USER": "1", "PIP_INDEX_URL": "https://x", "HOME": "/"})
    {'PYTHONPATH': '/x', 'PIP_USER': '1'}
    """

    def wrong(name: str) -> bool:
        return name in FOREIGN or (name.startswith("PIP_") and name[4:] not in SOURCES)

    return {name: value for name, value in given.items() if wrong(name.upper()) and value}


def environment(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables a program of ours gets: all but those that are :func:`ignored`."""
    given = os.environ if given is None else given
    wrong = ignored(given)
    # pip's files of settings may ask for these; a variable has the last word.
    answers = {f"PIP_{name}": "0" for name in ("USER", "DRY_RUN", "NO_DEPS", "REQUIRE_HASHES")}
    return {name: value for name, value in given.items() if name not in wrong} | answers


def say_ignored() -> None:
    """Tell the reader which variables have no effect here."""
    for name, value in ignored(os.environ).items():
        print(f"Ignoring {name}={value}: the course runs on the packages of its .venv.", flush=True)


def call(
    arguments: Sequence[str],
    cwd: os.PathLike[str],
    env: Mapping[str, str],
    errors: Callable[[str], object] | None = None,
) -> int:
    """Run a child to its end and return its status; a signal to end us is handed on to it.

    Ctrl-C reaches the child by itself and is its to answer; we wait. ``errors`` is given each line
    that the child writes to its standard error. 128 + n is the status of a child that signal n ended.
    """
    children: list[subprocess.Popen[str]] = []
    with _handing_on(children):
        pipe = subprocess.PIPE if errors else None
        child = subprocess.Popen(
            arguments, cwd=cwd, env=env, stderr=pipe, encoding="utf-8", errors="replace"
        )
        children.append(child)
        while True:
            try:
                if errors and child.stderr:
                    for line in child.stderr:
                        errors(line)
                status = child.wait()
                return status if status >= 0 else 128 - status
            except KeyboardInterrupt:
                continue


@contextmanager
def _handing_on(children: list[subprocess.Popen[str]]) -> Iterator[None]:
    """While the block runs, hand SIGTERM and SIGHUP on to the child; one that comes before it ends us."""

    def forward(number: int, _: FrameType | None) -> None:
        if not children:
            sys.exit(128 + number)
        children[0].send_signal(number)

    if threading.current_thread() is not threading.main_thread():  # no other may set a handler
        yield
        return
    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
