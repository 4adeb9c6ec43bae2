"""The public door: one check of what a function is given, and one sentence where a library refuses it.

``hold(globals())`` is the last line of a module. From there on each public function of the module
checks its arguments by their annotations (:mod:`core.contract`) when it is called from outside; what
it calls inside is trusted. Where torch, numpy or sympy refuse the operands that they get from it, the
door finds out which argument is to blame and says so: a model that cannot take x, a loss that cannot
compare outputs with y, else all arguments by their shapes. Errors that the house raises itself, and
those of the caller's own functions, pass as they are; so does what would be a fault of the house.
"""

import dis
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial, wraps
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
_inside: ContextVar[bool] = ContextVar("inside", default=False)


def hold(names: dict[str, Any]) -> None:
    """Guard the public functions of a module, given its ``globals()``: its own, and those in ``__all__``."""
    listed = names.get("__all__", ())
    for name, value in list(names.items()):
        own = isinstance(value, FunctionType) and value.__module__ == names["__name__"]
        again = isinstance(value, FunctionType) and name in listed and not name.startswith("_")
        if again or (own and not name.startswith("_")):
            names[name] = guard(value)


def guard(function: Function) -> Function:
    """The function behind the door; one that stands there already is given back as it is."""
    if isinstance(function, partial):
        return partial(guard(function.func), *function.args, **function.keywords)  # type: ignore[return-value]
    if not isinstance(function, FunctionType) or hasattr(function, "__held__"):
        return getattr(function, "__held__", function)
    signature, hints = inspect.signature(function), _hints(function)
    spread = {p.name for p in signature.parameters.values() if p.kind is p.VAR_POSITIONAL}
    free = {p.name for p in signature.parameters.values() if p.kind is p.VAR_KEYWORD}

    @wraps(function)
    def held(*given: Any, **named: Any) -> Any:
        if _inside.get():
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
    except NameError:  # a learner's criterion may speak of a class of its own
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


def _passes(error: BaseException) -> bool:
    """Whether an error is the house's own word, the file system's, or of a function of the caller's."""
    if isinstance(error, OSError):
        return True
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return True
    code = trace.tb_frame.f_code
    place = Path(code.co_filename)
    if HOUSE in place.parents:
        word = code.co_code[trace.tb_lasti] == dis.opmap["RAISE_VARARGS"]
        return word or not isinstance(error, LIBRARY)
    return not any(part in ("site-packages", "dist-packages") for part in place.parts) and not (
        place.is_relative_to(Path(dis.__file__).parent)
    )


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
        with torch.no_grad():
            output = model(x[:2])
    except Exception as error:  # whatever a module of the caller's raises
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        return f"model cannot take the batch's x, {quoted(x)}: {said}"
    loss = given.get("loss", nn.functional.cross_entropy)
    try:
        loss(output, y[:2])
        loss(model(x), y)
    except Exception as error:  # whatever a loss of the caller's raises
        said = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        span = f" from {float(y.min()):g} to {float(y.max()):g}"
        return (
            f"loss cannot compare the outputs, {quoted(output)}, with the batch's y, {quoted(y)}"
            f"{span}: {said}"
        )
    return None
