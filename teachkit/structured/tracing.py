"""The calls of a network as a graph, and which of them are understood."""

import copy
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional

LINEAR = (nn.Linear,)
CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Hardtanh, nn.Hardswish),
    *(nn.Hardsigmoid, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
)
# By the dimensions that they run over: over fewer than there are, they would mix the channels.
POOLING: dict[type[nn.Module], int] = {
    **dict.fromkeys((nn.MaxPool1d, nn.AvgPool1d, nn.AdaptiveAvgPool1d), 1),
    **dict.fromkeys((nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d, nn.ZeroPad2d), 2),
    **dict.fromkeys((nn.MaxPool3d, nn.AvgPool3d, nn.AdaptiveAvgPool3d), 3),
}
POINTWISE_CALLS: set[object] = {
    *(
        functional.relu,
        torch.relu,
        functional.leaky_relu,
        functional.elu,
        functional.gelu,
        functional.silu,
        functional.softplus,
        torch.tanh,
        functional.tanh,
    ),
    *(torch.sigmoid, functional.sigmoid, functional.dropout, operator.neg),
    *("relu", "relu_", "tanh", "sigmoid", "contiguous"),
}
POOLING_CALLS: dict[object, int] = {
    functional.avg_pool1d: 1,
    functional.adaptive_avg_pool1d: 1,
    functional.max_pool1d: 1,
    functional.avg_pool2d: 2,
    functional.adaptive_avg_pool2d: 2,
    functional.max_pool2d: 2,
}
TOGETHER: set[object] = {
    operator.add,
    operator.iadd,
    operator.mul,
    operator.imul,
    torch.add,
    torch.mul,
}
TOGETHER |= {"add", "add_", "mul", "mul_"}


def trace(model: nn.Module) -> fx.Graph:
    """The graph of calls in evaluation mode.

    Raises:
        ValueError: the code decides by the data, or does something else that cannot be traced.

    """
    chain = _chain("", model)
    if chain:
        graph = fx.Graph()
        value = graph.placeholder("input")
        for name in chain:
            value = graph.call_module(name, (value,))
        graph.output(value)
        return graph
    try:
        traced = copy.deepcopy(model).eval()  # the code may keep what it computes
        return fx.Tracer().trace(traced)
    except Exception as error:  # whatever the network's own code raises on a symbolic input
        why = str(error).split("\n")[0]
        raise ValueError(f"{type(model).__name__} cannot be traced: {why}") from error


def _chain(name: str, module: nn.Module) -> list[str] | None:
    """The modules that a Sequential of torch's own modules calls in turn: known without tracing."""
    if type(module) is not nn.Sequential:
        plain = name and type(module).__module__.startswith("torch.nn.modules")
        return [name] if plain else None
    found: list[str] = []
    for key, child in module._modules.items():
        part = _chain(f"{name}.{key}" if name else key, child) if child else None
        if not part:
            return None
        found += part
    return found


def refuse_hooks(modules: Mapping[str, nn.Module]) -> None:
    """Raise where a module does more than its class says."""
    for name, module in modules.items():
        hooks = (module._forward_hooks, module._forward_pre_hooks)
        if any(hooks) or "forward" in vars(module):
            raise ValueError(
                f"module {name!r} ({type(module).__name__}) has hooks or a replaced forward, "
                "whose effect is not known; remove them first"
            )


def flattens_all(node: fx.Node) -> bool:
    """True for flatten(x, 1), which keeps the samples apart and nothing else."""
    given: dict[str, Any] = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False))
    given |= node.kwargs
    return given.get("start_dim") == 1 and given.get("end_dim", -1) == -1


def words(node: fx.Node) -> str:
    """A call as an error message names it."""
    called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return f"{node.op} {called!r}"
