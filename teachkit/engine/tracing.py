"""The calls of a network as a graph of torch.fx, and which calls of functions are understood.

What a module does is asked of the one table, :mod:`teachkit.core.layers`. Calls that code makes itself,
``torch.relu(x)`` or ``x + y``, are no modules: their tables stand here. Only exact functions count.

The graph of a plain Sequential is known without tracing, and without a copy. The code of any other
network is run once by torch.fx on a copy, with a symbol in place of the data. It must not decide by the
data; then the graph says what happens for every input.
"""

import copy
import operator
from contextlib import suppress
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

from teachkit.core.layers import UncoveredError, chain

POINTWISE_CALLS: set[object] = {
    *(functional.relu, functional.leaky_relu, functional.elu, functional.gelu, functional.silu),
    *(functional.softplus, functional.tanh, functional.sigmoid, functional.dropout),
    *(torch.relu, torch.tanh, torch.sigmoid, operator.neg),
    *("relu", "relu_", "tanh", "sigmoid", "contiguous"),
}
# By the dimensions that they run over: over fewer than there are, they would mix the channels.
POOLING_CALLS: dict[object, int] = {
    **dict.fromkeys((functional.avg_pool1d, functional.adaptive_avg_pool1d), 1),
    **dict.fromkeys((functional.avg_pool2d, functional.adaptive_avg_pool2d), 2),
    functional.max_pool1d: 1,
    functional.max_pool2d: 2,
}
TOGETHER: set[object] = {
    *(operator.add, operator.iadd, operator.mul, operator.imul, torch.add, torch.mul),
    *("add", "add_", "mul", "mul_"),
}


def trace(model: nn.Module) -> fx.Graph:
    """The graph of calls in evaluation mode; a ValueError where the code cannot be traced.

    >>> [node.op for node in trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU())).nodes]
    ['placeholder', 'call_module', 'call_module', 'output']
    """
    if type(model) is nn.Sequential:
        with suppress(UncoveredError):
            return _one_after_the_other([name for name, _ in chain(model)])
    try:
        return fx.Tracer().trace(copy.deepcopy(model).eval())  # it may keep what it computes
    except Exception as error:  # whatever the network's own code raises on a symbolic input
        why = str(error).split("\n")[0]
        raise ValueError(f"{type(model).__name__} cannot be traced: {why}") from error


def _one_after_the_other(names: list[str]) -> fx.Graph:
    graph = fx.Graph()
    value = graph.placeholder("input")
    for name in names:
        value = graph.call_module(name, (value,))
    graph.output(value)
    return graph


def flattens_all(node: fx.Node) -> bool:
    """True for flatten(x, 1), which keeps the samples apart and nothing else."""
    given: dict[str, Any] = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False))
    given |= node.kwargs
    return given.get("start_dim") == 1 and given.get("end_dim", -1) == -1


def call_name(node: fx.Node) -> str:
    """A call as an error message names it."""
    called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return f"{node.op} {called!r}"
