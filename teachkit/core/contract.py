"""What an annotation promises, held: a value is checked against the type hint of its parameter.

One rule for each kind of hint of the house, in one table. A value that fits is given back as the
function can use it: a numpy whole number as an int, what can be walked through only once as a list.
"""

import math
import types
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import numpy as np
import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.types import Batch, Criterion, Data

LONGEST = 10_000  # entries of a sequence that are looked at one by one
Rule = Callable[[str, Any, Any], Any]


def fitting(name: str, value: Any, hint: Any) -> Any:
    """The value, if it is what the hint says; else a TypeError or ValueError that names and quotes it.

    >>> fitting("steps", np.int64(3), int), fitting("t", iter([1.0]), Sequence[float])
    (3, [1.0])
    >>> fitting("steps", "three", int)
    Traceback (most recent call last):
    TypeError: steps must be a whole number, got 'three'
    """
    if hint == Batch:
        return _batch("the batch", value)
    if hint in (int, float) and name in NAMED:
        NAMED[name](name, value)
        return value
    rule = RULES.get(hint) or RULES.get(get_origin(hint))
    if rule:
        return rule(name, value, hint)
    if isinstance(hint, type) and issubclass(hint, nn.Module):
        return _instance(name, checks.model(value), hint)
    if isinstance(hint, type) and hint.__module__.startswith("sympy"):
        return _symbolic(name, value, hint.__name__)
    return value if hint in FREE or not isinstance(hint, type) else _instance(name, value, hint)


def quoted(value: Any) -> str:
    """A value in few words: a tensor by its shape and type, a long text by its beginning.

    >>> quoted(torch.ones(2, 3, dtype=torch.float64)), quoted("a" * 100)
    ('a float64 tensor (2, 3)', "'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa…")
    """
    if isinstance(value, Tensor):
        return f"a {str(value.dtype)[6:]} tensor {tuple(value.shape)}"
    if isinstance(value, nn.Module):
        return f"a {type(value).__name__}"
    if isinstance(value, tuple) and any(isinstance(part, Tensor) for part in value):
        return f"({', '.join(map(quoted, value))})"
    if isinstance(value, Mapping):
        parts = ", ".join(f"{key!r}: {quoted(part)}" for key, part in list(value.items())[:2])
        return f"{{{parts}{', …' if len(value) > 2 else ''}}}"
    try:
        text = repr(value)
    except Exception:  # whatever a class of the caller's does
        text = f"a {type(value).__name__}"
    return text if len(text) <= 40 else f"{text[:38]}…"


def _wrong(name: str, must: str, value: Any) -> TypeError:
    return TypeError(f"{name} must {WORDS.get((name, must), f'be {must}')}, got {quoted(value)}")


def _instance(name: str, value: Any, hint: type) -> Any:
    if isinstance(value, hint):
        return value
    where = "torch." if hint is torch.Generator else ""
    raise _wrong(name, f"a {where}{hint.__name__}", value)


def _symbolic(name: str, value: Any, kind: str) -> Any:
    """What sympy can work with; what a text or a matrix is worth there, the engine says."""
    if "Matrix" in kind:
        fits = hasattr(value, "eigenvals")
    elif kind == "Expr" and isinstance(value, (Real, np.bool_)):
        return _number(name, value, float)
    else:
        parts = value if isinstance(value, (tuple, list)) else (value,)
        fits = isinstance(value, str) or (bool(parts) and all(map(_of_sympy, parts)))
    if fits:
        return value
    words = {"Expr": "sympy expression", "Symbol": "sympy Symbol"}
    raise _wrong(name, f"a {words.get(kind, 'sympy Matrix')}", value)


def _of_sympy(value: Any) -> bool:
    """Whether sympy has made this; an unknown function has a class of its own, which names no module."""
    return any(str(kind.__module__).startswith("sympy") for kind in type(value).__mro__)


def _whole(name: str, value: Any, hint: Any) -> int:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Integral):
        raise _wrong(name, "a whole number", value)
    return int(value)


def _number(name: str, value: Any, hint: Any) -> Any:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, Real):
        raise _wrong(name, "a number", value)
    try:
        fits = math.isfinite(value)
    except OverflowError:  # a whole number or a fraction beyond what a float holds
        fits = False
    if not fits:
        raise ValueError(f"{name} must be a finite number, got {quoted(value)}")
    return value


def _truth(name: str, value: Any, hint: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise _wrong(name, "True or False", value)
    return bool(value)


def _function(name: str, value: Any, hint: Any) -> Any:
    if not callable(value):
        raise _wrong(name, "a function", value)
    if isinstance(
        value, nn.Module
    ):  # one without shapes would be made inside the caller's derivatives
        checks.model(value, name=name)
    return value


def _tensor(name: str, value: Any, hint: Any) -> Tensor:
    if name in FLOATING and isinstance(value, Tensor) and not value.is_floating_point():
        raise _wrong(name, "of a floating type", value)
    return checks.usable(checks.finite(name, value))


def _one_of(name: str, value: Any, hint: Any) -> Any:
    for each in get_args(hint):
        kind = str if isinstance(each, str) else type(each)  # numpy's texts are texts
        alike = isinstance(value, kind) if kind is str else type(value) is kind
        if value is each or (alike and value == each):
            return each
    raise ValueError(f"{name} must be one of {list(get_args(hint))}, got {quoted(value)}")


def _either(name: str, value: Any, hint: Any) -> Any:
    """The first alternative that fits; where none does, what the one that comes closest says."""
    wrong: list[Exception] = []
    for each in get_args(hint):
        if each is type(None):
            if value is None:
                return None
            continue
        try:
            return fitting(name, value, each)
        except (TypeError, ValueError) as error:
            wrong.append(error)
    close = [error for error in wrong if isinstance(error, ValueError)]
    if close or len(wrong) == 1:
        raise (close or wrong)[0]
    raise TypeError("; or ".join(dict.fromkeys(str(error) for error in wrong)))


def _entries(name: str, value: Any, hint: Any) -> Any:
    if not isinstance(value, Mapping):
        raise _wrong(name, "a dict of tensors" if Tensor in get_args(hint) else "a dict", value)
    key, part = (*get_args(hint), Any, Any)[:2]
    checked = {
        (fitting(f"a key of {name}", k, key)): fitting(f"{name}[{quoted(k)}]", v, part)
        for k, v in value.items()
    }
    return value if all(checked[k] is value[k] for k in value) else checked


def _row(name: str, value: Any, hint: Any) -> Any:
    """A sequence; what can be walked through only once is walked through here."""
    parts = get_args(hint)
    mixed = get_origin(hint) is tuple and parts[1:] != (Ellipsis,)  # each entry of its own kind
    part = Any if mixed or not parts else parts[0]
    if isinstance(value, (str, bytes, Mapping, nn.Module)) or not isinstance(value, Iterable):
        raise _wrong(name, "a list", value)
    if isinstance(value, np.ndarray) and value.ndim == 0:
        raise _wrong(name, "a list", value)
    if isinstance(value, Tensor):
        if value.ndim == 0 or part not in (int, float, Any, object, Tensor):
            raise _wrong(name, "a list", value)
        if part is int and (value.dtype == torch.bool or value.is_floating_point()):
            raise _wrong(name, "a list of whole numbers", value)
        return _tensor(name, value, hint)
    kept = list(value) if isinstance(value, Iterator) else value
    if isinstance(value, Iterator) and kept == []:
        raise ValueError(f"{name} must not be empty, got an iterator that gives nothing (any more)")
    if name in FILLED and isinstance(kept, Collection) and len(kept) == 0:
        raise ValueError(f"{name} must not be empty")
    if not isinstance(kept, Collection) or len(kept) > LONGEST:
        return kept
    checked = [fitting(f"{name}[{i}]", each, part) for i, each in enumerate(kept)]
    same = all(a is b for a, b in zip(checked, kept, strict=True))
    if same or not isinstance(kept, (list, tuple)):
        return kept
    return checked if isinstance(kept, list) else tuple(checked)


def _batch(name: str, value: Any) -> Any:
    """The same tuple, unless a tensor had to be copied."""
    x, y = checks.batch(value, name)
    same = isinstance(value, tuple) and x is value[0] and y is value[1]
    return value if same else (x, y)


def _data(name: str, value: Any, hint: Any) -> Data:
    if not isinstance(value, Data):
        raise TypeError(f"{name} must be lab.data.Data(train, test), got {type(value).__name__}")
    train, test = _batch(f"{name}.train", value.train), _batch(f"{name}.test", value.test)
    same = train is value.train and test is value.test
    return value if same else Data(train, test)


# A number has one name and one range in the whole house.
NAMED: dict[str, Callable[[str, Any], float]] = {
    **dict.fromkeys(("sparsity", "final", "initial", "confidence"), checks.fraction),
    **dict.fromkeys(
        ("quality", "damping", "decay", "tolerance", "start", "end", "weight"), checks.number
    ),
}
FLOATING = ("weights", "H", "inverse")  # whole numbers would cut off what is added to them
FILLED = ("sparsities", "qualities")  # nothing to do is nothing that is asked
FREE = (Any, object, type(None))
WORDS = {  # what says more than the kind of the value
    ("block", "a list"): "be (rows, columns)",
    ("schedule", "a function"): "be a function of the step",
    ("shape", "a list"): "hold the sizes, e.g. (1, 8, 8)",
}
RULES: dict[Any, Rule] = {
    **{int: _whole, float: _number, bool: _truth, Tensor: _tensor, Data: _data},
    **dict.fromkeys((Criterion, Callable), _function),
    **dict.fromkeys((Union, types.UnionType), _either),
    **dict.fromkeys((dict, Mapping), _entries),
    **dict.fromkeys((Sequence, list, tuple, Collection, Iterable), _row),
    Literal: _one_of,
    np.ndarray: lambda name, value, hint: _instance(name, value, np.ndarray),
    TypeVar: lambda name, value, hint: value,
}
