"""Follow the channels of a network through its traced graph: which layers must be cut together.

Every tensor between two layers carries channels. A *space* is a set of channels that share one fate:
what a layer puts out, what a batch normalisation scales, what an addition adds up, what the next
layers read. A space is *fixed*, with a reason, where something not understood touches it.
"""

import operator
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import fx, nn
from torch.nn import functional

from teachkit.lab import checks
from teachkit.lab.evaluation import eval_mode

LINEAR = (nn.Linear,)
CONV = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
POINTWISE = (
    *(nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Mish),
    *(nn.Tanh, nn.Sigmoid, nn.Softplus, nn.Softsign, nn.LogSigmoid, nn.Hardtanh, nn.Hardswish),
    *(nn.Hardsigmoid, nn.Identity, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d),
)
POOLING = (
    *(nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d, nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d),
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d, nn.ZeroPad2d),
)
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
POOLING_CALLS: set[object] = {
    functional.avg_pool1d,
    functional.avg_pool2d,
    functional.adaptive_avg_pool1d,
    functional.adaptive_avg_pool2d,
}
POOLING_CALLS |= {functional.max_pool1d, functional.max_pool2d}
TOGETHER: set[object] = {
    operator.add,
    operator.iadd,
    operator.mul,
    operator.imul,
    torch.add,
    torch.mul,
}
TOGETHER |= {"add", "add_", "mul", "mul_"}


class Flow(NamedTuple):
    """The channels of a tensor: "image" (n, C, ...), "row" (..., C), "flat" (n, C · places), "other"."""

    space: int
    layout: str


class Reading(NamedTuple):
    """The space a layer reads, and how many neighbouring inputs belong to one channel."""

    space: int
    places: int


class Channels:
    """The spaces of a network.

    ``outputs`` and ``inputs`` say by layer which space it makes and reads; ``sizes`` how many channels
    a space has; ``fixed`` why a space cannot be cut; ``graph`` is the traced graph.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(checks.model(model).named_modules())
        self.outputs: dict[str, int] = {}
        self.inputs: dict[str, Reading] = {}
        self.sizes: list[int] = []
        self.fixed: dict[int, str] = {}
        self._parent: list[int] = []
        self._flows: dict[fx.Node, Flow] = {}
        _refuse_hooks(self.modules)
        self.graph = trace(model)
        for node in self.graph.nodes:
            self._flows[node] = self._visit(node)
        self._fix_shared(model)

    def root(self, space: int) -> int:
        """The number that stands for a space and all that were found equal to it."""
        while self._parent[space] != space:
            space = self._parent[space]
        return space

    def why_fixed(self, space: int) -> str | None:
        """The reason why a space cannot be cut, None if it can."""
        reasons = (why for s, why in self.fixed.items() if self.root(s) == self.root(space))
        return next(reasons, None)

    def coupled(self) -> dict[int, list[str]]:
        """The layers that make channels, by space, in the order of the network; fixed spaces too."""
        found: dict[int, list[str]] = {}
        for name, space in self.outputs.items():
            if type(self.modules[name]) in (*LINEAR, *CONV):
                found.setdefault(self.root(space), []).append(name)
        return found

    def _space(self, size: int, layout: str, fixed: str = "") -> Flow:
        self._parent.append(len(self._parent))
        self.sizes.append(size)
        if fixed:
            self.fixed[len(self.sizes) - 1] = fixed
        return Flow(len(self.sizes) - 1, layout)

    def _fix(self, flows: list[Flow], reason: str) -> Flow:
        for flow in flows:
            self.fixed.setdefault(flow.space, reason)
        return self._space(0, "other", reason)

    def _visit(self, node: fx.Node) -> Flow:
        flows = [self._flows[read] for read in node.all_input_nodes]
        if node.op == "placeholder":
            return self._space(0, "other", "it is an input of the network")
        if node.op == "output":
            return self._fix(flows, "it is an output of the network")
        if node.op == "call_module":
            return self._module(str(node.target), flows)
        called, first = node.target, flows[0] if len(flows) == 1 else None
        if first and (called in POINTWISE_CALLS or called in TOGETHER):  # together with a number
            return first
        if first and called in POOLING_CALLS and first.layout == "image":
            return first
        if first and called in (torch.flatten, "flatten") and _flattens_all(node):
            return self._flatten(first)
        if len(flows) == 2 and called in TOGETHER:
            return self._join(flows[0], flows[1], node)
        return self._fix(flows, f"{_words(node)} is not understood")

    def _module(self, name: str, flows: list[Flow]) -> Flow:
        module, flow = self.modules[name], flows[0]
        kind = type(module)
        if name in self.outputs:
            flows += [Flow(s, "") for s in (self.outputs[name], self.inputs[name].space)]
            return self._fix(flows, f"module {name!r} is called more than once")
        if kind in POINTWISE:
            return flow
        if kind is nn.Flatten and (module.start_dim, module.end_dim) == (1, -1):
            return self._flatten(flow)
        plain = not getattr(module, "return_indices", False)
        if kind in POOLING and plain and flow.layout in ("image", "other"):
            return flow
        if kind in (*LINEAR, *CONV):
            return self._layer(name, flow)
        if kind in (*NORM, nn.PReLU):
            return self._norm(name, flow)
        return self._fix(flows, f"module {name!r} ({kind.__name__}) is not understood there")

    def _layer(self, name: str, flow: Flow) -> Flow:
        """A Linear or Conv layer reads one space and makes another, a depthwise one the same."""
        module, linear = self.modules[name], type(self.modules[name]) in LINEAR
        size = self.sizes[self.root(flow.space)]
        reads, makes = (
            (module.in_features, module.out_features)
            if linear
            else (module.in_channels, module.out_channels)
        )
        places = reads // size if flow.layout == "flat" else 1
        fits = flow.layout in (("row", "flat") if linear else ("image",)) and reads == places * size
        if flow.layout != "other" and not fits:
            self._fix([flow], f"module {name!r} reads it along another dimension")
        self.inputs[name] = Reading(flow.space, max(places, 1))
        made = self._space(int(makes), "row" if linear else "image")
        if not linear and module.groups > 1:
            if not module.groups == reads == makes:
                self._fix([flow, made], f"module {name!r} is a convolution in groups")
            elif flow.layout == "image":
                made = flow
            else:
                self._fix([made], f"module {name!r} is a depthwise convolution of it")
        self.outputs[name] = made.space
        return made

    def _norm(self, name: str, flow: Flow) -> Flow:
        """A batch normalisation or a PReLU has numbers of its own for each channel."""
        module, size = self.modules[name], self.sizes[self.root(flow.space)]
        features = int(getattr(module, "num_features", 0) or module.num_parameters)
        places = features // size if flow.layout == "flat" else 1
        alone = type(module) is nn.PReLU and features == 1
        if flow.layout != "other" and not alone and features != places * size:
            self._fix([flow], f"module {name!r} reads it along another dimension")
        self.inputs[name] = Reading(flow.space, 0 if alone else max(places, 1))
        self.outputs[name] = flow.space
        return flow

    def _flatten(self, flow: Flow) -> Flow:
        """Channels come first, so each becomes height · width neighbours; rows stay as they are."""
        return Flow(flow.space, {"image": "flat"}.get(flow.layout, flow.layout))

    def _join(self, a: Flow, b: Flow, node: fx.Node) -> Flow:
        """What is added or multiplied entry by entry must be cut alike."""
        first, second = self.root(a.space), self.root(b.space)
        alike = a.layout == b.layout != "other" and self.sizes[first] == self.sizes[second]
        if not alike:
            return self._fix(
                [a, b], f"{_words(node)} joins it with other channels or with an input"
            )
        self._parent[second] = first
        return a

    def _fix_shared(self, model: nn.Module) -> None:
        """Parameters that two modules own, or that the code reads without calling their module."""
        owners = list(model.named_parameters(remove_duplicate=False))
        times = Counter(id(p) for _, p in owners)
        read = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        for key, parameter in owners:
            name = key.rpartition(".")[0]
            if name in self.outputs and (times[id(parameter)] > 1 or key in read):
                flows = [Flow(s, "") for s in (self.outputs[name], self.inputs[name].space)]
                self._fix(flows, f"parameter {key!r} is used in more than one place")


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
    before = set(vars(model))
    try:
        with eval_mode(model):
            return fx.Tracer().trace(model)
    except Exception as error:  # whatever the network's own code raises on a symbolic input
        why = str(error).split("\n")[0]
        raise ValueError(f"{type(model).__name__} cannot be traced: {why}") from error
    finally:  # the tracer leaves constants of the code behind
        for name in set(vars(model)) - before:
            delattr(model, name)


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


def _refuse_hooks(modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        hooks = (module._forward_hooks, module._forward_pre_hooks)
        if any(hooks) or "forward" in vars(module):
            raise ValueError(
                f"module {name!r} ({type(module).__name__}) has hooks or a replaced forward, "
                "whose effect is not known; remove them first"
            )


def _flattens_all(node: fx.Node) -> bool:
    """True for flatten(x, 1), which keeps the samples apart and nothing else."""
    given: dict[str, Any] = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False))
    given |= node.kwargs
    return given.get("start_dim") == 1 and given.get("end_dim", -1) == -1


def _words(node: fx.Node) -> str:
    called = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    return f"{node.op} {called!r}"
