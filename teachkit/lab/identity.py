"""What code is: the names of libraries, and digests of what a user has written.

The code that really runs counts, not its text: a changed comment or a function moved to another place
is the same, a file edited after it was imported is not yet another one.
"""

import dis
import hashlib
import importlib
import random
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

PLAIN = (type(None), bool, int, float, complex, str, bytes, type(...), type(NotImplemented))
TORCH = (torch.dtype, torch.device, torch.layout, torch.memory_format)
NUMPY = (np.random.Generator, np.random.BitGenerator, np.random.RandomState)
REFUSED = (
    ((Iterator, random.Random, torch.Generator, *NUMPY), "its state moves on with each use"),
    ((torch.jit.ScriptModule, torch.jit.ScriptFunction), "what is scripted hides its code"),
)
PYTHON = (  # where its own library lies
    Path(dis.__file__).parent,
    Path(sysconfig.get_path("platstdlib")),
    Path(sys.base_prefix) / "DLLs",
)
STATE = {"__getstate__", "__reduce__", "__reduce_ex__"}
SILENT = {  # what a class has besides its meaning
    *("__module__", "__doc__", "__dict__", "__weakref__", "__annotations__", "__qualname__"),
    *("__firstlineno__", "__static_attributes__", "_abc_impl", "__annotate__", "__parameters__"),
    *("__orig_bases__", "__annotations_cache__", "__annotate_func__", "__abstractmethods__"),
    *("_autograd_function_id", "_torchdynamo_wrapper_id"),  # running numbers
}
LOOKS_UP = {"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"}
READS = LOOKS_UP | {"LOAD_ATTR", "LOAD_METHOD", "IMPORT_FROM", "LOAD_SUPER_ATTR"}


def unknown(path: str, value: Any, why: str) -> ValueError:
    """The error for what cannot be described faithfully."""
    return ValueError(
        f"a file cannot tell whether {path}, a {full_name(type(value))}, is the same in a later run "
        f"({why}): give another one, or no file"
    )


def full_name(thing: Any) -> str:
    """Where a function or class stands.

    >>> full_name(digest)
    'teachkit.lab.identity.digest'
    """
    return f"{thing.__module__}.{thing.__qualname__}"


def digest(content: Any) -> str:
    """The SHA-256 of bytes."""
    return hashlib.sha256(content).hexdigest()


def short(text: str, most: int = 100) -> str:
    """A text, or its beginning and the digest of all of it.

    >>> short("abc" * 100)[:20], len(short("abc" * 100))
    ('abcabcabcabcabcabcab', 79)
    """
    return text if len(text) <= most else f"{text[:60]}… {digest(text.encode())[:17]}"


def plain(value: Any) -> str | None:
    """A number or a word as it is written; None for anything else.

    >>> plain(np.float64(0.5)), plain(0.5), plain([])
    ('0.5', '0.5', None)
    """
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        value = value.item()
    return short(repr(value)) if type(value) in PLAIN or isinstance(value, TORCH) else None


def numbers(path: str, values: Any) -> str:
    """Type, shape and a digest of the values of a tensor or an array.

    >>> numbers("x", torch.ones(2, dtype=torch.uint8))[:20]
    'torch.uint8 (2,) 9dc'
    """
    trained = ""
    if isinstance(values, torch.Tensor):
        usual = library(type(values).__module__) and values.layout == torch.strided
        if not usual or values.is_meta or values.is_quantized:
            raise unknown(path, values, "only plain tensors with values can be compared")
        flat = values.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        content = digest(flat.view(torch.uint8).numpy().data)
        trained = " trained" if values.requires_grad else ""
    elif values.dtype.hasobject or type(values) is not np.ndarray:
        raise unknown(path, values, "only arrays of numbers can be compared")
    else:
        content = digest(values.tobytes())
    return f"{values.dtype} {tuple(values.shape)}{trained} {content[:32]}"


def library(name: object) -> bool:
    """Whether a module is Python's, an installed package's or ours: known by name and version.

    >>> [library(name) for name in ("torch.nn", "math", "teachkit.obd", "__main__", None)]
    [True, True, True, False, False]
    """
    top = str(name).split(".")[0]
    if top == "__main__" or top not in sys.modules:
        return False
    module = sys.modules[top]
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", [])]
    paths = [Path(place) for place in places if place]
    if any({"site-packages", "dist-packages"}.intersection(path.parts) for path in paths):
        return True
    if top in sys.stdlib_module_names:  # a file of the user's may have such a name, too
        return not paths or any(path.is_relative_to(home) for path in paths for home in PYTHON)
    return top == "teachkit"


def by_name(thing: Any) -> bool:
    """Whether a function or class, or one that wraps it, stands in a library under its own name.

    Who wraps one in turn, by ``functools.wraps``, takes its name and does something else; the house's
    own doors do not.

    >>> by_name(dis.dis), by_name(lambda: 0)
    (True, False)
    """
    module, name = getattr(thing, "__module__", None), getattr(thing, "__qualname__", "")
    if not library(module):
        return False
    there: Any = sys.modules.get(str(module))
    for part in name.split("."):
        there = getattr(there, part, None)
    if getattr(thing, "__held__", None) is thing:
        thing = getattr(thing, "__wrapped__", thing)
    while there is not None and there is not thing:
        there = getattr(there, "__wrapped__", None)
    return there is not None


def built_in(kind: type) -> bool:
    """Whether a class is written in C by a library, also where it has no name there.

    >>> built_in(type(vars(int))), built_in(type("Own", (), {}))
    (True, False)
    """
    heap = 1 << 9  # Py_TPFLAGS_HEAPTYPE: made while Python runs
    return library(kind.__module__) and not kind.__flags__ & heap


def version(module: ModuleType) -> str:
    """A library and its version."""
    top = sys.modules.get(module.__name__.split(".")[0], module)
    return f"module {module.__name__} {getattr(top, '__version__', '')}".rstrip()


def code(body: CodeType) -> str:
    """A digest of compiled code: what it does, and with which constants and names.

    >>> code((lambda x: x + 1).__code__) == code((lambda x: x + 1).__code__)
    True
    >>> code((lambda x: x + 1).__code__) == code((lambda x: x + 2).__code__)
    False
    """
    counts = (body.co_argcount, body.co_posonlyargcount, body.co_kwonlyargcount, body.co_flags)
    names = (body.co_names, body.co_varnames, body.co_freevars, body.co_cellvars)
    what = (body.co_code, body.co_exceptiontable, counts, names, _constant(_used(body)))
    return digest(repr(what).encode())


def _used(body: CodeType) -> tuple[Any, ...]:
    """The constants, but for a docstring: the first, which no step reads."""
    read = {each.arg for each in dis.get_instructions(body) if each.opcode in dis.hasconst}
    return body.co_consts if 0 in read else body.co_consts[1:]


def _constant(value: Any) -> Any:
    if isinstance(value, CodeType):
        return code(value)
    if isinstance(value, tuple):
        return tuple(map(_constant, value))
    return sorted(map(repr, value)) if isinstance(value, frozenset) else (type(value), value)


def codes(body: CodeType) -> Iterator[CodeType]:
    """Compiled code and that of the functions within it."""
    yield body
    for each in body.co_consts:
        if isinstance(each, CodeType):
            yield from codes(each)


def reads(function: FunctionType) -> tuple[list[str], list[str], list[str]]:
    """The globals that a function looks up, the modules that it imports, and all names that it reads."""
    steps = [each for body in codes(function.__code__) for each in dis.get_instructions(body)]
    looked, imported, names = (
        sorted({str(each.argval) for each in steps if each.opname in kinds})
        for kinds in (LOOKS_UP, {"IMPORT_NAME"}, READS)
    )
    return [name for name in looked if name in function.__globals__], imported, names


def imported(name: str) -> ModuleType | None:
    """A module by the name that stands in an import, None where it cannot be had."""
    try:
        return importlib.import_module(name)
    except (ImportError, ValueError):
        return None
