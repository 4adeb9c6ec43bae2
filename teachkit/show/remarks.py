"""What is said of one call of a learner's function: its input, what it raised, that it returned nothing."""

import inspect
from collections.abc import Callable, Iterator
from functools import partial
from types import BuiltinFunctionType, FunctionType, MethodType
from typing import Any

from teachkit.core import door
from teachkit.show import running
from teachkit.show.answers import short
from teachkit.show.hints import Sheet
from teachkit.show.running import Call


def raised(call: Call, function: Callable[..., Any], shown: str) -> str:
    """Of a call that raised: the error, the learner's line, the input."""
    error = call.error
    try:
        said = (str(error).strip() or " ").splitlines()[0][:300].strip()
    except Exception:  # it has no text
        said = ""
    line = running.place(error, function) if error else ""
    words = f"your function raised {type(error).__name__}" + (f": {said}" if said else "")
    return "\n".join(part for part in (words, line, shown) if part)


def nothing(call: Call, changed: list[str]) -> str:
    """Of an answer that is None, why it may be so."""
    if call.answer is not None:
        return ""
    if call.printed.strip():
        return "your function prints its answer and returns nothing; write return in place of print"
    if changed:
        return f"your function changes {', '.join(changed)} and returns nothing; return the answer"
    return "your function returns nothing; end it with return and the answer"


def no_value(answer: Any) -> str:
    """Of an answer that is no value yet, what it is."""
    if inspect.iscoroutine(answer):
        return "your function is written with async, so that it only begins; leave async out"
    if isinstance(answer, Iterator):
        kind = type(answer).__name__
        return f"your function returns a {kind}, which holds no values yet; return the values"
    if isinstance(answer, (FunctionType, BuiltinFunctionType, MethodType, partial)):
        return "your function returns a function; return what that one gives"
    return (
        f"your function returns the type {answer.__name__}, no value"
        if isinstance(answer, type)
        else ""
    )


def shown_inputs(sheet: Sheet, inputs: tuple[Any, ...]) -> str:
    """The input of a call, named as the stub names it."""
    pairs = zip(sheet.names, inputs, strict=True)
    return "input: " + ", ".join(f"{name} = {short(value)}" for name, value in pairs)


door.hold(globals())
