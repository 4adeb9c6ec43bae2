"""Follow the channels of a network through its traced graph: which layers must be cut together.

Every tensor between two layers carries channels. A *space* is a set of channels that share one fate:
what a layer puts out, what a batch normalisation scales, what an addition adds up, what the next
layers read. A space is *fixed*, with a reason, where something not understood touches it.
"""

from collections import Counter
from typing import NamedTuple

import torch
from torch import fx, nn

from teachkit.core import checks
from teachkit.structured.tracing import (
    CONV,
    LINEAR,
    NORM,
    POINTWISE,
    POINTWISE_CALLS,
    POOLING,
    POOLING_CALLS,
    TOGETHER,
    flattens_all,
    refuse_hooks,
    trace,
    words,
)


class Flow(NamedTuple):
    """The channels of a tensor: "row" (..., C), "flat" (n, C · places), "other", or an image.

    An image (n, C, ...) is "image1", "image2" or "image3", by its dimensions beside n and C.
    """

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
        self.modules = dict(checks.model(model).named_modules(remove_duplicate=False))
        self.outputs: dict[str, int] = {}
        self.inputs: dict[str, Reading] = {}
        self.sizes: list[int] = []
        self.fixed: dict[int, str] = {}
        self._parent: list[int] = []
        self._flows: dict[fx.Node, Flow] = {}
        refuse_hooks(self.modules)
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
        if first and first.layout == f"image{POOLING_CALLS.get(called)}":
            return first
        if first and called in (torch.flatten, "flatten") and flattens_all(node):
            return self._flatten(first)
        if len(flows) == 2 and called in TOGETHER:
            return self._join(flows[0], flows[1], node)
        return self._fix(flows, f"{words(node)} is not understood")

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
        if kind in POOLING and plain and flow.layout in (f"image{POOLING[kind]}", "other"):
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
        image = "" if linear else f"image{len(module.kernel_size)}"
        fits = flow.layout in (("row", "flat") if linear else (image,)) and reads == places * size
        if flow.layout != "other" and not fits:
            self._fix([flow], f"module {name!r} reads it along another dimension")
        self.inputs[name] = Reading(flow.space, max(places, 1))
        made = self._space(int(makes), image or "row")
        if not linear and module.groups > 1:
            if not module.groups == reads == makes:
                self._fix([flow, made], f"module {name!r} is a convolution in groups")
            elif flow.layout == image:
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
        return Flow(flow.space, "flat" if flow.layout.startswith("image") else flow.layout)

    def _join(self, a: Flow, b: Flow, node: fx.Node) -> Flow:
        """What is added or multiplied entry by entry must be cut alike."""
        first, second = self.root(a.space), self.root(b.space)
        alike = a.layout == b.layout != "other" and self.sizes[first] == self.sizes[second]
        if not alike:
            return self._fix([a, b], f"{words(node)} joins it with other channels or with an input")
        self._parent[second] = first
        return a

    def _fix_shared(self, model: nn.Module) -> None:
        """Tensors that two modules own, or that the code reads without calling their module."""
        owners = [
            *model.named_parameters(remove_duplicate=False),
            *model.named_buffers(remove_duplicate=False),
        ]
        times = Counter(id(tensor) for _, tensor in owners)
        read = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        for key, tensor in owners:
            name = key.rpartition(".")[0]
            if name in self.outputs and (times[id(tensor)] > 1 or key in read):
                flows = [Flow(s, "") for s in (self.outputs[name], self.inputs[name].space)]
                self._fix(flows, f"{key!r} is used in more than one place")
