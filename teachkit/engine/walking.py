"""One walk through the graph of a network: each call is visited once, and its rule is asked.

What has no rule, or a rule that does not know what it is given, fixes all units that the call reads.
"""

import inspect
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

from torch import fx, nn

from teachkit.engine import modules
from teachkit.engine.axes import MisfitError, StrangeError, Value, plain, strange
from teachkit.engine.calls import AWARE, CALLS, SIZES, Opaque, Rule, Shape
from teachkit.engine.reducing import through
from teachkit.engine.sizes import Size, unknown
from teachkit.engine.ties import Ties
from teachkit.engine.tracing import call_name
from teachkit.engine.weighted import Layer, close

STRANGE = "is not understood"


class Walk:
    """One walk through a graph, with the ``shapes`` that are known, and errors that fix."""

    def __init__(
        self,
        ties: Ties,
        modules: dict[str, nn.Module],
        shapes: dict[fx.Node, Any],
        errors: tuple[type[Exception], ...],
    ) -> None:
        self.ties, self.modules = ties, modules
        self.shapes = shapes
        self.errors: tuple[type[Exception], ...] = (*errors, *ODD)
        self.values: dict[fx.Node, Any] = {}

    def run(self, graph: fx.Graph) -> None:
        """Visit every call."""
        for node in graph.nodes:
            made = self._visit(node)
            try:
                if isinstance(made, Value) and node in self.shapes:
                    made = _known(made, self.shapes[node])
                if isinstance(made, Shape) and "unpacked" in node.meta:
                    made.of.refine(node.meta["unpacked"])
            except self.errors:
                made = self._fix(made, f"{call_name(node)} {STRANGE}")
            self.values[node] = made

    def _visit(self, node: fx.Node) -> Any:
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.values.__getitem__)
        if node.op == "placeholder":
            return Value([plain(), None])
        if node.op == "output":
            return self._fix([*args], "it is an output of the network")
        if node.op == "get_attr":
            return self._owned(str(node.target))
        if node.op == "call_module":
            return self._module(str(node.target), args, kwargs)
        return self._call(node, args, kwargs)

    def _owned(self, key: str) -> Value:
        """A parameter or a buffer that the code reads; any other tensor cannot be cut."""
        name, _, attribute = key.rpartition(".")
        module = self.modules.get(name)
        owned = {} if module is None else {**module._parameters, **module._buffers}
        tensor = owned.get(attribute)
        if tensor is None:
            return strange()
        value = self.ties.value(tensor)  # statistics stay as they are in the masked network
        return through(value, not attribute.startswith("running"))

    def _module(self, name: str, args: Any, kwargs: Any) -> Any:
        module = self.modules[name]
        call = f"module {name!r} ({type(module).__name__})"
        layer = Layer(name, module, call)
        try:
            rule = modules.rule_of(module)
            if rule is None or not _binds(rule, 2 + len(args), tuple(kwargs)):
                raise StrangeError
            made = rule(self.ties, layer, *args, **kwargs)
            return self._in_place(call, args, made) if getattr(module, "inplace", False) else made
        except self.errors as error:
            misfit = isinstance(error, MisfitError)
            why = f"module {name!r} reads it along another dimension" if misfit else ""
            close(self.ties, module, why or f"{call} {STRANGE} there")
            return self._fix([args, kwargs], why or f"{call} {STRANGE} there")

    def _call(self, node: fx.Node, args: Any, kwargs: Any) -> Any:
        call, target = call_name(node), node.target
        sized = target in SIZES and not any(isinstance(each, Value) for each in _leaves(args))
        rule: Rule | None = (SIZES if sized else CALLS).get(target)
        try:
            if rule is None or not _binds(rule, 2 + len(args), tuple(kwargs)):
                raise StrangeError
            args, kwargs = self._plain([args, kwargs], rule, call)
            made = rule(self.ties, call, *args, **kwargs)
            return self._in_place(call, args, made) if _inside(node) else made
        except self.errors:
            fixed = self._fix([args, kwargs], f"{call} {STRANGE}")
            return Opaque() if sized or _of_numbers(target) else fixed

    def _plain(self, given: Any, rule: Rule, call: str) -> Any:
        """The arguments of a rule, which knows tensors, sizes and constants."""
        for each in _leaves(given):
            if isinstance(each, Size) and rule not in AWARE:
                self.ties.fix(each.units, f"{call} computes with how many there are")
        return _mapped(given)

    def _in_place(self, call: str, args: Any, made: Any) -> Any:
        """What overwrites its input changes what others read: it must not forget which are 0."""
        tensors = args and isinstance(args[0], Value) and isinstance(made, Value)
        if tensors and _zeros(args[0]) != _zeros(made):
            self.ties.fix(args[0].units, f"{call} {STRANGE}: it overwrites it")
        return made

    def _fix(self, given: Any, why: str) -> Value:
        for each in _leaves(given):
            if isinstance(each, Shape):
                each = each.of
            if isinstance(each, (Value, Size)):
                self.ties.fix(each.units, why)
        return strange()


# What a rule raises that is given something that torch would refuse, or that nobody thought of.
ODD = (TypeError, ValueError, AttributeError, IndexError, ArithmeticError, RuntimeError)
INTO = ("iadd", "isub", "imul", "itruediv", "setitem")


def _inside(node: fx.Node) -> bool:
    """True for a call that writes into what it is given."""
    name = node.target if isinstance(node.target, str) else node.target.__name__
    return bool(name.endswith("_") or node.kwargs.get("inplace") or name in INTO)


def _known(value: Value, shape: tuple[int | None, ...]) -> Value:
    """A value whose number of dimensions, and the lengths of those without units, are given."""
    if value.strange:
        return Value([plain(n) for n in shape])
    value.refine(len(shape))
    axes = [
        plain(n) if n is not None and axis is not None and axis.plain else axis
        for axis, n in zip(value.axes, shape, strict=True)
    ]
    value.axes[:] = axes
    return value


def _of_numbers(target: object) -> bool:
    """True for arithmetic of Python, whose result of numbers is a number."""
    return getattr(target, "__module__", "") in ("_operator", "math", "builtins")


def _zeros(value: Value) -> list[bool]:
    """Which of the axes with units keep removed ones 0."""
    return [axis.zero for axis in value.axes if axis is not None and not axis.plain]


def _nested(given: Any) -> bool:
    return isinstance(given, (list, tuple)) and not isinstance(given, (Size, Shape))


def _leaves(given: Any) -> Iterator[Any]:
    """All that stands in nested lists, tuples, slices and dictionaries."""
    if isinstance(given, dict):
        given = list(given.values())
    if isinstance(given, slice):
        given = [given.start, given.stop, given.step]
    if not _nested(given):
        yield given
        return
    for each in given:
        yield from _leaves(each)


def _mapped(given: Any) -> Any:
    """Sizes that are numbers as numbers, and those of which nothing is known as unknown ones."""
    if isinstance(given, dict):
        return {key: _mapped(each) for key, each in given.items()}
    if isinstance(given, slice):
        return slice(*map(_mapped, (given.start, given.stop, given.step)))
    if _nested(given):
        made = map(_mapped, given)
        return tuple(made) if isinstance(given, tuple) else list(made)
    if isinstance(given, Size) and given.known is not None:
        return given.known
    return unknown() if isinstance(given, Opaque) else given


@lru_cache(maxsize=4096)
def _binds(rule: Rule, count: int, names: tuple[str, ...]) -> bool:
    """True if a rule takes so many arguments by place, and these by name."""
    try:
        inspect.signature(rule).bind(*[None] * count, **dict.fromkeys(names))
    except TypeError:
        return False
    return True
