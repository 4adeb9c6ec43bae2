"""Run a learner's function: what it answers, raises, prints and changes, for a few seconds at most.

Everything runs in the thread that asks, so that nothing is left behind that prints later and an
interrupt by the user works as ever. Who stops it: an alarm signal where there is one, which ends a
sleep, too; else another thread that raises :class:`OutOfTimeError` in this one.
"""

import ast
import builtins
import contextlib
import copy
import ctypes
import dis
import inspect
import io
import linecache
import signal
import sys
import textwrap
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from types import CodeType, FrameType
from typing import Any, NamedTuple
from unittest.mock import patch

import numpy as np
import sympy
from torch import Tensor

from teachkit.core import door

LIMIT = 5.0  # seconds for all calls of one check
TICK = 0.05  # how often a function is told that its time is over; it may have caught the last time
PAPER = 10_000  # characters of what it prints that are kept
LARGE = 10**6  # numbers in an answer, of which none has so many

SYMBOLIC = (sympy.Basic, sympy.MatrixBase)
KNOWN = (Tensor, np.ndarray, *SYMBOLIC, bool, int, float, str, set, list, tuple)  # can be compared
COPIED = (np.ndarray, list, tuple, set, dict)


class OutOfTimeError(BaseException):
    """The time is over. No Exception, so that the learner's ``except Exception`` lets it pass."""


class Call(NamedTuple):
    """One call: the answer, what was printed, what was raised, which inputs it has changed."""

    answer: Any = None
    printed: str = ""
    error: BaseException | None = None
    changed: tuple[int, ...] = ()


class _Paper(io.StringIO):
    """Takes what is printed, and keeps its beginning."""

    def write(self, text: str) -> int:
        super().write(text[: max(PAPER - self.tell(), 0)])
        return len(text)


def called(function: Callable[..., Any], inputs: tuple[Any, ...]) -> Call:
    """Call a function with copies of the inputs. Only the time limit and the user's interrupt pass."""
    mine, paper = copy.deepcopy(inputs), _Paper()
    try:
        with contextlib.redirect_stdout(paper), patch.object(builtins, "input", _refused):
            answer = kept(function(*mine))
    except (OutOfTimeError, KeyboardInterrupt):
        raise
    except BaseException as error:  # SystemExit, too
        return Call(None, paper.getvalue(), error)
    changed = tuple(i for i, pair in enumerate(zip(mine, inputs, strict=True)) if not alike(*pair))
    return Call(answer, paper.getvalue(), None, changed)


def _refused(*_words: Any) -> str:
    """Stand in for ``input``, which would wait for the learner until the time is over."""
    raise RuntimeError("input() asks nobody in a check; use what your function is given")


def kept(answer: Any) -> Any:
    """A copy of an answer as it is now: the function may write into the same object again."""
    if inspect.iscoroutine(answer):
        answer.close()
    if large(answer):
        return answer
    try:
        if isinstance(answer, Tensor):
            return answer.detach().clone()
        return copy.deepcopy(answer) if isinstance(answer, COPIED) else answer
    except Exception as error:  # a tensor with a gradient, or whatever is in it
        parts = type(answer) in (list, tuple) and not isinstance(error, RecursionError)
        return type(answer)(map(kept, answer)) if parts else answer


def large(answer: Any) -> bool:
    """Whether there are more numbers in it than in any right answer."""
    if isinstance(answer, (Tensor, np.ndarray)):
        return int(np.prod(answer.shape)) > LARGE
    return isinstance(answer, (list, tuple, str, set, dict)) and len(answer) > LARGE


def alike(a: Any, b: Any) -> bool:
    """Whether two values hold the same; what cannot be compared is taken for the same."""
    if (isinstance(a, KNOWN) or isinstance(b, KNOWN)) and type(a) is not type(b):
        return False
    try:
        if isinstance(a, (Tensor, np.ndarray)):
            return a.shape == b.shape and bool(((a == b) | ((a != a) & (b != b))).all())
        if isinstance(a, (list, tuple)):
            return len(a) == len(b) and all(map(alike, a, b))
        return not isinstance(a, KNOWN) or bool(a == b or (a != a and b != b))
    except Exception:  # whatever their == raises
        return True


# Time ------------------------------------------------------------------------------------------


class Clock:
    """Runs out after some seconds; a computer that is busy with other things gets three times as many."""

    def __init__(self, seconds: float) -> None:
        self.seconds, self.running = seconds, True
        self.wall, self.work = time.monotonic(), time.process_time()

    def over(self) -> bool:
        """Whether the time is over."""
        wall, work = time.monotonic() - self.wall, time.process_time() - self.work
        return (
            self.running and wall >= self.seconds and (work >= wall / 2 or wall >= 3 * self.seconds)
        )


def importing(frame: FrameType | None) -> bool:
    """Whether a module is being imported: stopped halfway, it would stay broken in this session."""
    while frame is not None and not frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`OutOfTimeError` in the block when it has taken that long."""
    main = threading.current_thread() is threading.main_thread()
    stopped = _by_signal if main and hasattr(signal, "setitimer") else _by_thread
    with stopped(Clock(seconds)):
        yield


@contextlib.contextmanager
def _by_signal(clock: Clock) -> Iterator[None]:
    def ring(_signal: int, frame: FrameType | None) -> None:
        if clock.over() and not importing(frame):
            raise OutOfTimeError

    before = signal.signal(signal.SIGALRM, ring)
    timer = signal.setitimer(signal.ITIMER_REAL, clock.seconds, TICK)
    try:
        yield
    finally:
        try:
            clock.running = False
        finally:  # even if the bell rings on the line above
            signal.setitimer(signal.ITIMER_REAL, *timer)
            signal.signal(signal.SIGALRM, before or signal.SIG_DFL)


@contextlib.contextmanager
def _by_thread(clock: Clock) -> Iterator[None]:
    here, done = ctypes.c_ulong(threading.get_ident()), threading.Event()
    throw = ctypes.pythonapi.PyThreadState_SetAsyncExc

    def watch() -> None:
        while not done.wait(TICK):
            if clock.over() and not importing(sys._current_frames().get(here.value)):
                throw(here, ctypes.py_object(OutOfTimeError))

    guard = threading.Thread(target=watch, daemon=True)
    guard.start()
    try:
        yield
    finally:
        while guard.is_alive():
            with contextlib.suppress(OutOfTimeError):  # thrown at the last moment
                done.set()
                guard.join()
        throw(here, None)


# Where it happened, and what it is ----------------------------------------------------------------


def place(error: BaseException, function: Any) -> str:
    """The learner's own line that an error comes from: "line 3: return 1 / 0"; empty if there is none."""
    home = getattr(getattr(function, "__code__", None), "co_filename", "")
    for frame, number in reversed(list(traceback.walk_tb(error.__traceback__))):
        code = frame.f_code
        generated = code.co_filename.startswith("<") and "ipython" not in code.co_filename
        if code.co_filename != home and (generated or door.owner(code.co_filename) != "caller"):
            continue
        text = linecache.getline(code.co_filename, number).strip()
        within = "" if code is getattr(function, "__code__", code) else f" of {code.co_name}"
        return f"line {number}{within}" + (f": {text[:100]}" if text else "")
    return ""


def untouched(function: Any) -> bool:
    """Whether a function is a stub still: a body of ``...``, ``pass`` or a docstring alone."""
    code = getattr(function, "__code__", None)
    if code is None or code.co_name == "<lambda>" or not _does_nothing(code):
        return False
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]
    except (OSError, TypeError, SyntaxError, IndexError):  # no source at hand: the code alone says
        return True
    body = tree.body if isinstance(tree, ast.FunctionDef) else []
    return all(
        isinstance(part, ast.Pass)
        or (isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant))
        for part in body
    )


def _does_nothing(code: CodeType) -> bool:
    steps = [step for step in dis.get_instructions(code) if step.opname not in ("RESUME", "NOP")]
    gives = {"LOAD_CONST", "RETURN_CONST"}
    return all(
        step.opname == "RETURN_VALUE" or (step.opname in gives and step.argval is None)
        for step in steps
    )


def misfit(function: Callable[..., Any], names: list[str]) -> str:
    """Why a function cannot take these inputs, with its own parameters; empty if it can."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # of some written in C nothing is known
        return ""
    try:
        signature.bind(*names)
    except TypeError:
        mine = ", ".join(map(str, signature.parameters.values())) or "nothing"
        values = "1 value" if len(names) == 1 else f"{len(names)} values"
        return f"your function takes ({mine}); the exercise gives it {values}: ({', '.join(names)})"
    return ""
