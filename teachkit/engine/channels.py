"""Follow the units of a network through its calls: which must be removed together, and which cannot be.

The walk visits each call once and asks its rule, from :mod:`teachkit.engine.modules` for layers and
:mod:`teachkit.engine.calls` for functions; a rule ties units (:mod:`teachkit.engine.ties`) and says which
lie along the dimensions of the result (:mod:`teachkit.engine.axes`). Whatever has no rule *fixes* the
units that it reads, with a reason in words that an error can quote. So what is not understood costs units
their freedom, never the exactness of the result.

No data flows, and sizes may stay unknown, so this takes milliseconds, on the meta device, too. Where it
matters how many dimensions an input has, every number of them that fits is followed, and what any of them
ties or fixes holds.
"""

import inspect
from collections.abc import Iterator
from functools import cached_property, lru_cache
from itertools import product
from typing import Any

import numpy as np
from torch import Tensor, fx, nn

from teachkit.core import checks
from teachkit.core.layers import does_more
from teachkit.engine import modules
from teachkit.engine.axes import (
    Ids,
    MisfitError,
    Size,
    StrangeError,
    UnclearError,
    Value,
    plain,
    strange,
    unknown,
)
from teachkit.engine.calls import AWARE, CALLS, SIZES, Opaque, Rule, Shape
from teachkit.engine.ties import Ties
from teachkit.engine.tracing import call_name, graphs, shapes

RANKS, INPUTS = range(1, 6), 2  # numbers of dimensions that are tried, for so many inputs at most
STRANGE = "is not understood"


class Channels:
    """The units of a network.

    ``ties`` is their register; ``outputs`` says by layer which units it puts out, in the order of the
    network; ``graphs`` are the traced graphs, and ``reads_sizes`` says if the code reads its layers' sizes.
    """

    def __init__(self, model: nn.Module, x: Tensor | tuple[Tensor, ...] | None = None) -> None:
        self.modules = dict(checks.model(model).named_modules(remove_duplicate=False))
        self.ties = Ties()
        for name, module in self.modules.items():
            if does_more(module):
                raise ValueError(
                    f"module {name!r} ({type(module).__name__}) has hooks or a replaced forward, "
                    "whose effect is not known; remove them first"
                )
        self.graphs, self.reads_sizes = graphs(model)
        for graph in self.graphs if x is None else self.graphs[:1]:
            self._follow(graph, _sized(graph, model, x))

    @property
    def outputs(self) -> dict[str, Ids]:
        """By layer the units that it puts out."""
        return self.ties.made

    def why_fixed(self, ids: Ids) -> str | None:
        """The reason why one of these units cannot be removed, None if all can."""
        known = (self.ties.reasons.get(int(each)) for each in self.ties.classes[ids[ids >= 0]])
        return next((why for why in known if why), None)

    @cached_property
    def groups(self) -> list[tuple[str, ...]]:
        """Layers with the same classes of units in the same order, in the order of the network."""
        rows: dict[bytes, list[str]] = {}
        for name, ids in self.outputs.items():
            rows.setdefault(self.ties.classes[ids].tobytes(), []).append(name)
        return [tuple(names) for names in rows.values()]

    def coupled(self) -> list[tuple[str, ...]]:
        """The groups whose outputs can be removed, all of them, and at least one stays."""
        free = [names for names in self.groups if self.why_fixed(self.outputs[names[0]]) is None]
        return [
            names for names in free if len(set(self._classes(names))) > 1 or self._single(names)
        ]

    def _classes(self, names: tuple[str, ...]) -> list[int]:
        return [int(each) for each in self.ties.classes[self.outputs[names[0]]]]

    def _single(self, names: tuple[str, ...]) -> bool:
        return len(self.outputs[names[0]]) == 1

    def _guesses(self, inputs: list[fx.Node], sizes: dict[fx.Node, Any]) -> bool:
        return not sizes and len(inputs) <= INPUTS

    def _follow(self, graph: fx.Graph, sizes: dict[fx.Node, Any]) -> None:
        """Walk; where the number of dimensions of an input matters, once for each that fits."""
        mark, fits = self.ties.mark(), False
        inputs = [node for node in graph.nodes if node.op == "placeholder" and _is_used(node)]
        try:
            Walk(self, sizes, (StrangeError, MisfitError)).run(graph)
            return
        except UnclearError:
            self.ties.back(mark)
        for ranks in product(RANKS, repeat=len(inputs)) if self._guesses(inputs, sizes) else ():
            mark = self.ties.mark()
            guess = {node: (None,) * rank for node, rank in zip(inputs, ranks, strict=True)}
            try:
                Walk(self, guess, (StrangeError, UnclearError)).run(graph)
                fits = True
            except MisfitError:
                self.ties.back(mark)
        if not fits:
            Walk(self, sizes, (StrangeError, MisfitError, UnclearError)).run(graph)


class Walk:
    """One walk through a graph, with the ``shapes`` that are known, and errors that fix."""

    def __init__(
        self, channels: Channels, shapes: dict[fx.Node, Any], errors: tuple[type[Exception], ...]
    ) -> None:
        self.ties, self.modules = channels.ties, channels.modules
        self.shapes, self.errors = shapes, (*errors, *ODD)
        self.values: dict[fx.Node, Any] = {}

    def run(self, graph: fx.Graph) -> None:
        """Visit every call."""
        for node in graph.nodes:
            made = self._visit(node)
            if isinstance(made, Value) and node in self.shapes:
                made = _known(made, self.shapes[node])
            if isinstance(made, Shape) and "unpacked" in node.meta:
                made.of.refine(node.meta["unpacked"])
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
        tables = [] if module is None else [module._parameters, module._buffers]
        for table in tables:
            tensor = table.get(attribute)
            if tensor is not None:
                return self.ties.value(tensor)
        return strange()

    def _module(self, name: str, args: Any, kwargs: Any) -> Any:
        module = self.modules[name]
        call = f"module {name!r} ({type(module).__name__})"
        layer = modules.Layer(name, module, call)
        try:
            rule = modules.rule_of(module)
            if rule is None or not _binds(rule, 2 + len(args), tuple(kwargs)):
                raise StrangeError
            return rule(self.ties, layer, *args, **kwargs)
        except self.errors as error:
            misfit = isinstance(error, MisfitError)
            why = f"module {name!r} reads it along another dimension" if misfit else ""
            modules.close(self.ties, module, why or f"{call} {STRANGE} there")
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
            return self._in_place(node, args, made)
        except self.errors:
            fixed = self._fix([args, kwargs], f"{call} {STRANGE}")
            return Opaque() if sized or _of_numbers(target) else fixed

    def _plain(self, given: Any, rule: Rule, call: str) -> Any:
        """The arguments of a rule, which knows tensors, sizes and constants."""
        for each in _leaves(given):
            if isinstance(each, Size) and rule not in AWARE:
                self.ties.fix(each.units, f"{call} computes with how many there are")
        return _mapped(given)

    def _in_place(self, node: fx.Node, args: Any, made: Any) -> Any:
        """What overwrites its input changes what others read: it must not forget which are 0."""
        name = node.target if isinstance(node.target, str) else node.target.__name__
        inside = name.endswith("_") or node.kwargs.get("inplace") or name in INTO
        if inside and args and isinstance(args[0], Value) and isinstance(made, Value):
            if _zeros(args[0]) != _zeros(made):
                self.ties.fix(args[0].units, f"{call_name(node)} {STRANGE}: it overwrites it")
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


def _sized(graph: fx.Graph, model: nn.Module, x: Any) -> dict[fx.Node, Any]:
    """The shapes between calls, if inputs are given."""
    return {} if x is None else shapes(graph, model, x if isinstance(x, tuple) else (x,))


def _known(value: Value, shape: tuple[int | None, ...]) -> Value:
    """A value whose number of dimensions, and the lengths of those without units, are given."""
    if value.strange:
        return Value([plain(n) for n in shape])
    value.refine(len(shape)) if shape else None
    axes = [
        plain(n) if n is not None and axis is not None and axis.plain else axis
        for axis, n in zip(value.axes, shape, strict=True)
    ]
    value.axes[:] = axes
    return value


def _is_used(node: fx.Node) -> bool:
    """True for an input that more than checks look at."""
    names = {call_name(user) for user in node.users}
    return not all(" 'eq'" in name or "assert" in name for name in names)


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


def rows(ids: Ids, classes: Ids, gone: Ids) -> Ids:
    """Which of these entries stay, given which classes go."""
    return ~gone[np.where(ids < 0, 0, classes[ids])] | (ids < 0)
