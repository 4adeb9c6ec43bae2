"""What a value is, in words and digests: two runs with equal descriptions were given the same.

A description is flat: a name for each part, e.g. ``loss.label_smoothing``, and what stands there, so
that a difference has a name too. Of what a user has written, the code counts that really runs, with
its defaults, the variables it encloses and the globals it reads; of an object its class and its whole
state; of a library its name and version. What cannot be described faithfully is refused: a generator
of random numbers or an iterator, whose state moves on with each use, and whatever hides its state.
Unseen stays what code looks up by a name that it makes itself, and torch's global generator.
"""

import copyreg
import functools
import logging
from collections.abc import Callable, Iterable, Mapping
from types import BuiltinFunctionType, FunctionType, MemberDescriptorType, MethodType, ModuleType
from typing import Any

import numpy as np
from torch import Tensor, nn

from teachkit.lab import identity
from teachkit.lab.identity import by_name, full_name, library, plain, short, unknown

Way = Callable[[str, Any], None]
ORGANS = ("_parameters", "_buffers", "_modules")


def describe(**given: Any) -> dict[str, str]:
    """Each part of what is given, by name.

    >>> describe(loss=nn.MSELoss(reduction="sum"))["loss.reduction"]
    "'sum'"
    >>> describe(rate=functools.partial(round, ndigits=3))["rate.ndigits"]
    '3'

    Raises:
        ValueError: something in it cannot be described faithfully; the message names it.

    """
    describer = _Describer()
    for name, value in given.items():
        describer.add(name, value)
    return describer.words


class _Describer:
    """The words so far, and what has been described: an object that comes again is named only."""

    def __init__(self) -> None:
        self.words: dict[str, str] = {}
        self.seen: dict[int, tuple[str, Any]] = {}  # the objects too, so that no id is used again
        self.opened: set[tuple[int, tuple[str, ...]]] = set()
        self.ways: tuple[tuple[Any, Way], ...] = (
            ((Tensor, np.ndarray), self._numbers),
            ((set, frozenset), self._set),
            ((list, tuple), self._many),
            (Mapping, self._mapping),
            (functools.partial, self._partial),
            (type, self._class),
            (FunctionType, self._function),
            (BuiltinFunctionType, self._builtin),
            (functools._lru_cache_wrapper, self._parts("__wrapped__")),
            ((staticmethod, classmethod), self._parts("__func__")),
            (MethodType, self._parts("__func__", "__self__")),
            (property, self._parts("fget", "fset", "fdel")),
            (functools.cached_property, self._parts("func")),
            (ModuleType, self._module),
            (nn.Module, self._network),
            (logging.Logger, self._parts("name")),
            (object, self._object),
        )

    def add(self, path: str, value: Any) -> None:
        """Describe a value under this name."""
        word = plain(value)
        if word is not None:
            self.words[path] = word
        elif id(value) in self.seen and type(value) is not tuple:  # equal ones may be one or two
            self.words[path] = f"the same as {self.seen[id(value)][0]}"
        else:
            for kinds, why in identity.REFUSED:
                if isinstance(value, kinds):
                    raise unknown(path, value, why)
            self.seen[id(value)] = path, value
            next(way for kinds, way in self.ways if isinstance(value, kinds))(path, value)

    def _parts(self, *names: str) -> Way:
        """The way for what is described by some of its attributes."""

        def way(path: str, value: Any) -> None:
            self.words[path] = type(value).__name__
            for name in names:
                self.add(f"{path}.{name}", getattr(value, name))

        return way

    def _numbers(self, path: str, values: Any) -> None:
        self.words[path] = identity.numbers(path, values)

    def _set(self, path: str, values: Any) -> None:
        words = [plain(value) for value in values]
        if None in words:
            raise unknown(path, values, "only sets of numbers and words can be compared")
        self._class(path, type(values), f" of {short(str(sorted(map(str, words))))}")
        self._state(path, values)

    def _many(self, path: str, values: Any) -> None:
        self._class(path, type(values), f" of {len(values)}")
        for i, value in enumerate(values):
            self.add(f"{path}[{i}]", value)
        self._state(path, values)

    def _mapping(self, path: str, values: Mapping[Any, Any]) -> None:
        keys = [plain(key) or f"key {i}" for i, key in enumerate(values)]
        self._class(path, type(values), f" of {short(str(keys))}")
        for name, (key, value) in zip(keys, values.items(), strict=True):
            if plain(key) is None:
                self.add(f"{path}.{name}", key)
            self.add(f"{path}[{name}]", value)
        self._state(path, values)

    def _partial(self, path: str, value: Any) -> None:
        self.add(path, value.func)
        for i, each in enumerate(value.args):
            self.add(f"{path}[{i}]", each)
        for name in sorted(value.keywords):
            self.add(f"{path}.{name}", value.keywords[name])
        self._state(path, value)

    def _class(self, path: str, kind: type, more: str = "") -> None:
        """A class of a library by its name; one of the user's with its members and bases."""
        named = [base for base in kind.__mro__ if by_name(base) or identity.built_in(base)]
        own = [base for base in kind.__mro__ if base not in named]
        names = [base.__qualname__ for base in own] + [full_name(base) for base in named[:1]]
        self.words[path] = " < ".join(names) + more
        for base in own:
            for name in sorted(set(vars(base)) - identity.SILENT):
                member = vars(base)[name]
                if not hasattr(member, "__objclass__") or callable(member):  # no slots
                    self.add(f"{path}.class {base.__name__}.{name}", member)

    def _function(self, path: str, function: Any) -> None:
        if by_name(function):
            self.words[path] = full_name(function)
            return
        self.words[path] = f"{function.__name__} {identity.code(function.__code__)[:16]}"
        closure = function.__closure__ or ()
        for name, cell in zip(function.__code__.co_freevars, closure, strict=True):
            try:
                self.add(f"{path}.{name}", cell.cell_contents)
            except ValueError as error:
                if "empty" not in str(error):  # a name to which nothing is bound yet
                    raise
        for name in ("__defaults__", "__kwdefaults__"):
            self.add(f"{path}.{name}", getattr(function, name))
        self._state(path, function)
        outside = function.__globals__  # its __module__ may be that of a function it wraps
        if not (library(outside.get("__name__")) and "__file__" in outside):
            self._outside(path, function)

    def _outside(self, path: str, function: FunctionType) -> None:
        """What a function of the user's reads from elsewhere, also by an import of its own."""
        looked_up, imports, names = identity.reads(function)
        for name in imports:
            module = identity.imported(name)
            if module is None:
                raise unknown(path, function, f"it imports {name!r}, which is not to be had here")
            self._module(f"{path}.{name}", module, names)
        for name in looked_up:
            value = function.__globals__[name]
            if isinstance(value, ModuleType):
                self._module(f"{path}.{name}", value, names)
            else:
                self.add(f"{path}.{name}", value)

    def _module(self, path: str, module: ModuleType, names: Iterable[str] = ()) -> None:
        """A library by its version; of a file of the user's, what is read of it."""
        self.words[path] = identity.version(module)
        key = id(module), tuple(names)
        if library(module.__name__) or key in self.opened:
            return
        self.opened.add(key)
        for name in names:
            value = vars(module).get(name)
            if isinstance(value, ModuleType):
                self._module(f"{path}.{name}", value, names)
            elif value is not None:
                self.add(f"{path}.{name}", value)

    def _builtin(self, path: str, function: Any) -> None:
        owner = function.__self__
        if owner is None or isinstance(owner, ModuleType):
            where = getattr(owner, "__name__", function.__module__)
            if not library(function.__module__ or where):
                raise unknown(path, function, "nothing tells what it does")
            self.words[path] = f"{where}.{function.__qualname__}"
        else:
            self.words[path] = function.__name__
            self.add(f"{path}.__self__", owner)

    def _network(self, path: str, module: nn.Module) -> None:
        state = {name: {} for name in ORGANS} | vars(module)
        self._class(path, type(module), f" of {short(str(list(state['_modules'])))}")
        for name in sorted(set(state) - set(ORGANS)):
            value = state[name]
            if "_hooks" in name and isinstance(value, Mapping):  # its keys are running numbers
                value = list(value.values()) or None
            if value is not None:
                self.add(f"{path}.{name}", value)
        for organ in ORGANS:
            for name, value in state[organ].items():
                self.add(f"{path}.{name}", value)

    def _object(self, path: str, value: Any) -> None:
        """Class and state, both as ``pickle`` knows them and as they are."""
        kind = type(value)
        try:
            registered: Any = copyreg.dispatch_table.get(kind)
            made: Any = registered(value) if registered else value.__reduce_ex__(2)
        except Exception as error:
            raise unknown(path, value, str(error)) from None
        if isinstance(made, str):
            where = getattr(value, "__module__", None) or kind.__module__
            if not library(where):
                raise unknown(path, value, "nothing tells what it does")
            self.words[path] = f"{where}.{made}"
            return
        self._class(path, kind)
        function, arguments, state, items, entries = (*made, None, None, None)[:5]
        self.add(f"{path}.made by", function)
        for i, each in enumerate(arguments):
            if each is not kind:
                self.add(f"{path}({i})", each)
        self.add(f"{path}.items", None if items is None else list(items))
        self.add(f"{path}.entries", None if entries is None else list(entries))
        names = {name for base in kind.__mro__[:-1] for name in vars(base)}
        if names & identity.STATE or library(kind.__module__):  # else the attributes say it
            self.add(f"{path}.state", state)
        self._state(path, value)

    def _state(self, path: str, value: Any) -> None:
        """The attributes of an object, in its dict and in slots."""
        for name, each in sorted(getattr(value, "__dict__", {}).items()):
            if name not in identity.SILENT:
                self.add(f"{path}.{name}", each)
        for base in type(value).__mro__:
            for name, member in vars(base).items():
                if isinstance(member, MemberDescriptorType) and not library(base.__module__):
                    self.add(f"{path}.{name}", getattr(value, name, None))
