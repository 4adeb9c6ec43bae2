"""The calls of a network as graphs of torch.fx.

The graph of a plain Sequential is known without tracing, and without a copy. The code of any other
network is run by torch.fx on a copy that shares the parameters, with a symbol in place of the data. It
must not decide by the data; then the graph says what happens for every input. A network whose inputs have
default values is run with these, and with symbols too where its code allows: it may take another way.
"""

import copy
import inspect
import math
import operator
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from types import GeneratorType
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx, nn

from teachkit.core.layers import UncoveredError, chain

SIZES = frozenset(
    ("out_features", "in_features", "out_channels", "in_channels", "num_features", "num_channels")
) | {"num_parameters", "embedding_dim", "groups", "num_groups"}


class Traced(NamedTuple):
    """The graphs of a network, whether its code reads sizes of its layers, and the tensors it makes."""

    graphs: list[fx.Graph]
    reads_sizes: bool
    constants: dict[str, Any]


class Recorded(fx.Proxy):
    """A symbol that also records what is written into it: torch.fx takes ``y -= 1`` for ``y = y - 1``."""


def _writing(operation: Callable[[Any, Any], Any]) -> Callable[[Recorded, Any], Any]:
    def record(self: Recorded, other: Any) -> Any:
        return self.tracer.create_proxy("call_function", operation, (self, other), {})

    return record


for _name in (
    "add",
    "sub",
    "mul",
    "truediv",
    "floordiv",
    "mod",
    "pow",
    "matmul",
    "and",
    "or",
    "xor",
):
    setattr(Recorded, f"__i{_name}__", _writing(getattr(operator, f"__i{_name}__")))


class Tracer(fx.Tracer):
    """Traces, and notes whether the code read a size of one of its layers."""

    proxy_buffer_attributes = True

    def __init__(self, modules: Any) -> None:
        super().__init__(autowrap_modules=modules)
        self.reads_sizes = False

    def proxy(self, node: fx.Node) -> fx.Proxy:
        """The symbol of a call."""
        return Recorded(node, self)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        """What the code gets that unpacks a value; how many it takes is noted."""
        parts = super().iter(obj)
        if not isinstance(parts, GeneratorType):
            return parts
        known = list(parts)
        obj.node.meta["unpacked"] = len(known)
        return iter(known)

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        """What the code gets for an attribute that lies in a module's tables."""
        self.reads_sizes |= attr in SIZES
        return super().getattr(attr, attr_val, parameter_proxy_cache)


def trace(model: nn.Module) -> fx.Graph:
    """The graph of calls in evaluation mode; a ValueError where the code cannot be traced.

    >>> [node.op for node in trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU())).nodes]
    ['placeholder', 'call_module', 'call_module', 'output']
    """
    return traced(model).graphs[0]


def traced(model: nn.Module) -> Traced:
    """All graphs of a network: where inputs have default values, with them, and with symbols."""
    if type(model) is nn.Sequential:
        with suppress(UncoveredError):
            return Traced([_one_after_the_other([n for n, _ in chain(model)])], False, {})
    defaults = _defaults(model)
    try:
        try:
            tracer = Tracer(())
            made = [tracer.trace(_own(model), concrete_args=defaults or None)]
        except Exception:  # slower, and the code may call functions of math on sizes
            tracer = Tracer((math,))
            made = [tracer.trace(_own(model), concrete_args=defaults or None)]
    except Exception as error:  # whatever the network's own code raises on a symbolic input
        why = str(error).split("\n")[0]
        raise ValueError(f"{type(model).__name__} cannot be traced: {why}") from error
    attributes = vars(tracer.root).items()
    constants = {name: each for name, each in attributes if name.startswith("_tensor_constant")}
    if defaults:
        with suppress(Exception):  # what is given may decide on the way
            made.append(tracer.trace(_own(model)))
    return Traced(made, tracer.reads_sizes, constants)


def shapes(known: Traced, model: nn.Module, inputs: Sequence[Any]) -> dict[fx.Node, Any]:
    """The shape of every tensor between two calls, from one run in evaluation mode."""
    seen: dict[fx.Node, Any] = {}

    class Run(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            result = super().run_node(n)
            if isinstance(result, Tensor):
                seen[n] = tuple(result.shape)
            return result

    own = copy.deepcopy(model, {id(p): p for p in model.parameters()}).eval()
    vars(own).update(known.constants)
    places = [node for node in known.graphs[0].nodes if node.op == "placeholder"]
    graph = known.graphs[0 if len(inputs) <= len(places) - len(_defaults(model)) else -1]
    try:
        with torch.no_grad():
            Run(own, garbage_collect_values=False, graph=graph).run(*inputs)
    except Exception as error:  # whatever torch or the network's own code raises
        why = str(error).split("\n")[0]
        raise ValueError(f"{type(model).__name__} does not run on x: {why}") from error
    return seen


def same(graph: fx.Graph, other: fx.Graph) -> bool:
    """True if two graphs make the same calls with the same numbers, and with no tensors of the code."""
    return str(graph) == str(other) and "_tensor_constant" not in str(graph)


def _own(model: nn.Module) -> nn.Module:
    """A copy to trace, for it may keep what it computes; sizes lie where reading them is noticed."""
    memo: dict[int, Any] = {id(p): p for p in model.parameters()}
    for module in model.modules():
        if not module._modules and type(module).__module__.startswith("torch.nn.modules"):
            memo[id(module)] = _shell(module)  # its code does not run
    return copy.deepcopy(model, memo).eval()


def _shell(module: nn.Module) -> nn.Module:
    """A layer that shares all with another, but for its sizes, which lie where reads are noticed."""
    shell = object.__new__(type(module))
    vars(shell).update(vars(module), _buffers=dict(module._buffers))
    for name in SIZES.intersection(vars(shell)):
        shell._buffers[name] = vars(shell).pop(name)
    return shell


def _defaults(model: nn.Module) -> dict[str, Any]:
    """The inputs that may be left out, with what they are then."""
    parameters = inspect.signature(model.forward).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not p.empty}


def _one_after_the_other(names: list[str]) -> fx.Graph:
    graph = fx.Graph()
    value = graph.placeholder("input")
    for name in names:
        value = graph.call_module(name, (value,))
    graph.output(value)
    return graph


def call_name(node: fx.Node) -> str:
    """A call as an error message names it."""
    called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return f"{node.op} {called!r}"
