"""The public door: one check of what a function is given, and one sentence where a library refuses it.

``hold(globals())`` is the last line of a module. From there on each public function of the module
checks its arguments by their annotations (:mod:`core.contract`) when it is called from outside, be it
by a function of the caller's that the house calls; what the house calls itself is trusted.
Where torch, numpy or sympy refuse the operands that they get from it, the
door finds out which argument is to blame and says so: a model that cannot take x, a loss that cannot
compare outputs with y, else all arguments by their shapes. Errors that the house raises itself, and
those of the caller's own functions, pass as they are; so does what would be a fault of the house.
"""

import copy
import dis
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache, partial, wraps
from pathlib import Path
from types import FunctionType
from typing import Any, TypeVar, get_type_hints

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.contract import fitting, quoted
from teachkit.core.types import Data

Function = TypeVar("Function", bound=Callable[..., Any])
HOUSE = Path(__file__).parents[1]
LIBRARY = (RuntimeError, ValueError, TypeError, IndexError, OverflowError, MemoryError)
NUMERIC = ("torch", "numpy", "scipy", "sympy", "mpmath")  # libraries whose refusals are explained
_inside: ContextVar[bool] = ContextVar("inside", default=False)


def hold(names: dict[str, Any]) -> None:
    """Guard the public functions of a module, given its ``globals()``: its own, and those in ``__all__``."""
    listed = names.get("__all__", ())
    for name, value in list(names.items()):
        if not isinstance(value, FunctionType) or name.startswith("_"):
            continue
        if name in listed or value.__module__ == names["__name__"]:
            names[name] = guard(value)
            home, key = vars(sys.modules[value.__module__]), value.__name__
            if home.get(key) is value:  # pickle finds a function in its own module
                home[key] = names[name]


def guard(function: Function) -> Function:
    """The function behind the door; one that stands there already is given back as it is."""
    if isinstance(function, partial):
        return partial(guard(function.func), *function.args, **function.keywords)  # type: ignore[return-value]
    known = getattr(function, "__held__", None)
    if not isinstance(function, FunctionType):
        return known or function
    if known and function in (known, getattr(known, "__wrapped__", None)):  # no copy by ``wraps``
        return known  # type: ignore[no-any-return]
    signature, hints = inspect.signature(function), _hints(function)
    spread = {p.name for p in signature.parameters.values() if p.kind is p.VAR_POSITIONAL}
    free = {p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD}

    @wraps(function)
    def held(*given: Any, **named: Any) -> Any:
        if _inside.get() and owner(sys._getframe(1).f_code.co_filename) != "caller":
            return function(*given, **named)
        try:
            bound = signature.bind(*given, **named)
        except TypeError:  # Python says it best
            return function(*given, **named)
        for name, value in bound.arguments.items():
            if name in spread:
                parts = [fitting(f"{name}[{i}]", v, hints[name]) for i, v in enumerate(value)]
                bound.arguments[name] = tuple(parts)
            elif name in hints and name not in free:
                bound.arguments[name] = fitting(name, value, hints[name])
        with _within(function.__qualname__, bound.arguments):
            made = function(*bound.args, **bound.kwargs)
        if inspect.isgenerator(made):
            return _walked(function.__qualname__, bound.arguments, made)
        _refuse_nan(function.__qualname__, made)
        return made

    function.__held__ = held.__held__ = held  # type: ignore[attr-defined]
    return held  # type: ignore[return-value]


def own(function: Function) -> Function:
    """Mark a function that checks all that it is given by itself; it stands before the door."""
    function.__held__ = function  # type: ignore[attr-defined]
    return function


def _hints(function: FunctionType) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except (
        NameError,
        SyntaxError,
        TypeError,
        AttributeError,
    ):  # of a class or in words of one's own
        return {}


def _refuse_nan(name: str, made: Any) -> None:
    """Numbers that are all finite on the way in and NaN on the way out were too large or too small."""
    if isinstance(made, (tuple, list)):
        for part in made[:9]:
            _refuse_nan(name, part)
    elif isinstance(made, dict):
        _refuse_nan(name, list(made.values()))
    elif isinstance(made, Tensor) and made.is_floating_point() and checks.has_nan(made):
        raise ValueError(
            f"{name} came to NaN: what it was given is too large, too small or degenerate"
        )


def _walked(name: str, given: Mapping[str, Any], steps: Iterator[Any]) -> Iterator[Any]:
    """A generator, each of whose steps is taken inside."""
    end = object()
    while True:
        with _within(name, given):
            step = next(steps, end)
        if step is end:
            return
        yield step


@contextmanager
def _within(name: str, given: Mapping[str, Any]) -> Iterator[None]:
    """Inside the house, where doors stand open; what a library refuses there is explained."""
    token = _inside.set(True)
    try:
        yield
    except Exception as error:
        if _passes(error):
            raise
        raise _explained(name, given, error) from error
    finally:
        _inside.reset(token)


@cache
def owner(file: str) -> str:
    """Whose code a file holds: "house", "caller", else the library's name."""
    place = Path(file)
    if HOUSE in place.parents:
        return "house"
    for at, part in enumerate(place.parts[:-1]):
        if part in ("site-packages", "dist-packages"):
            return place.parts[at + 1]
    standard = place.is_relative_to(Path(dis.__file__).parent) or file.startswith("<frozen ")
    return "python" if standard else "caller"


def _passes(error: BaseException) -> bool:
    """Whether an error is the house's own word, the system's, or of a function of the caller's.

    Where the caller's code got it from one of the numeric libraries, as a model from torch, it is
    explained like one that the house got.
    """
    if isinstance(error, (OSError, torch.OutOfMemoryError)):
        return True
    asked, told, trace, word = "house", "", error.__traceback__, True
    while trace is not None:
        holder, code = owner(trace.tb_frame.f_code.co_filename), trace.tb_frame.f_code.co_code
        if holder in ("house", "caller"):
            asked, told = holder, ""
            word = code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
        told = told or (holder if holder != asked else "")
        trace = trace.tb_next
    if asked == "caller":
        return told not in NUMERIC or not isinstance(error, LIBRARY)
    return not told and (word or not isinstance(error, LIBRARY))


def _explained(name: str, given: Mapping[str, Any], error: BaseException) -> Exception:
    """Which argument is to blame: the model, the batch, the loss, else all by their shapes."""
    said = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    model, batch = given.get("model"), given.get("batch")
    data = given.get("data")
    if batch is None:
        batch = data.train if isinstance(data, Data) else data
    why = None
    if isinstance(model, nn.Module):
        why = _unusable(model) or (isinstance(batch, tuple) and _unfit(model, batch, given))
    if why:
        return ValueError(why)
    parts = ", ".join(f"{key} = {quoted(value)}" for key, value in given.items())
    kind = TypeError if isinstance(error, TypeError) else ValueError
    return kind(f"{name} cannot work with {parts}: {said}")


def _unusable(model: nn.Module) -> str | None:
    for name, p in model.named_parameters():
        if p.is_meta:
            return f"model's parameter {name!r} is on the meta device, which holds no values"
        if p.is_inference():
            return (
                f"model's parameter {name!r} was made in inference mode; make the model outside it"
            )
    return None


def _unfit(model: nn.Module, batch: Any, given: Mapping[str, Any]) -> str | None:
    """Why the model cannot take x, or the loss cannot compare what it gives with y."""
    x, y = batch
    p = next(model.parameters(), None)
    for name, t in (("x", x), ("y", y)):
        if t.is_meta or (p is not None and t.device != p.device):
            return f"the batch's {name} is on {t.device}, the model on {p.device if p is not None else '-'}"
    try:
        model = copy.deepcopy(model).eval()  # in training mode, a try would write into its buffers
    except Exception:  # whatever a module of the caller's raises
        return None
    try:
        with torch.no_grad():
            output, whole = model(x[:2]), model(x)
    except Exception as error:  # whatever a module of the caller's raises
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return f"model cannot take the batch's x, {quoted(x)}: {said}"
    loss = given.get("loss", nn.functional.cross_entropy)
    try:
        loss(output, y[:2])
        loss(whole, y)
    except Exception as error:  # whatever a loss of the caller's raises
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        span = f" from {float(y.min()):g} to {float(y.max()):g}"
        return (
            f"loss cannot compare the outputs, {quoted(output)}, with the batch's y, {quoted(y)}"
            f"{span}: {said}"
        )
    return None
