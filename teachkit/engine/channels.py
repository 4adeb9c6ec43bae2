"""Follow the channels of a network through its graph: which layers must be cut together.

A *space* is a set of channels that share one fate: what a layer puts out, what a batch normalisation
scales, what an addition adds up, what the next layers read. The walk visits each call once:

- a Linear or Conv layer reads one space and makes a new one; a depthwise convolution, a batch
  normalisation and a PReLU have numbers for each channel of the space that they read;
- a function of single numbers and a pooling leave the space as it is; ``flatten(x, 1)`` only turns
  each channel into height · width neighbours;
- an addition or a product of two tensors makes two spaces one (a union–find by parents);
- whatever else touches a space *fixes* it, with a reason in words that an error can quote. So what is
  not understood costs a space its freedom, never the exactness of the result.

No data flows and no shape is computed, so this takes milliseconds, on the meta device, too.
"""

from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import fx, nn

from teachkit.core import checks
from teachkit.core.layers import does_more, kind
from teachkit.engine.tracing import (
    POINTWISE_CALLS,
    POOLING_CALLS,
    TOGETHER,
    call_name,
    flattens_all,
    trace,
)

# Where the channels of a tensor lie; images by their dimensions beside samples and channels.
LAST, FLATTENED, UNKNOWN = "channels last", "flattened image", "unknown"
IMAGES = {1: "1-d image", 2: "2-d image", 3: "3-d image"}


class Flow(NamedTuple):
    """A tensor between two calls: the space of its channels, and where they lie in it.

    ``layout`` is "channels last" (..., C); "2-d image" (n, C, height, width), and so for 1 and 3;
    "flattened image" (n, C · places); or "unknown".
    """

    space: int
    layout: str


class Inputs(NamedTuple):
    """The space that a layer reads, and how many neighbouring inputs belong to one channel, or 0.

    There are none where a layer has one number for all channels.
    """

    space: int
    per_channel: int


class Channels:
    """The spaces of a network.

    ``outputs`` and ``inputs`` say by layer which space it makes and reads; ``sizes`` how many channels
    a space has; ``fixed`` why a space cannot be cut; ``graph`` is the traced graph.
    """

    def __init__(self, model: nn.Module) -> None:
        self.modules = dict(checks.model(model).named_modules(remove_duplicate=False))
        self.outputs: dict[str, int] = {}
        self.inputs: dict[str, Inputs] = {}
        self.sizes: list[int] = []
        self.fixed: dict[int, str] = {}
        self._parent: list[int] = []
        self._flows: dict[fx.Node, Flow] = {}
        for name, module in self.modules.items():
            if does_more(module):
                raise ValueError(
                    f"module {name!r} ({type(module).__name__}) has hooks or a replaced forward, "
                    "whose effect is not known; remove them first"
                )
        self.graph = trace(model)
        for node in self.graph.nodes:
            self._flows[node] = self._visit(node)
        self._fix_shared(model)

    def root(self, space: int) -> int:
        """The number that stands for a space and all that turned out to be the same."""
        while self._parent[space] != space:
            space = self._parent[space]
        return space

    def why_fixed(self, space: int) -> str | None:
        """The reason why a space cannot be cut, None if it can."""
        alike = (why for s, why in self.fixed.items() if self.root(s) == self.root(space))
        return next(alike, None)

    def coupled(self) -> dict[int, list[str]]:
        """The layers that make channels, by space, in the order of the network; fixed spaces too."""
        layers: dict[int, list[str]] = {}
        for name, space in self.outputs.items():
            if kind(self.modules[name]).role in ("linear", "conv"):
                layers.setdefault(self.root(space), []).append(name)
        return layers

    def _space(self, size: int, layout: str) -> Flow:
        self._parent.append(len(self._parent))
        self.sizes.append(size)
        return Flow(len(self.sizes) - 1, layout)

    def _fix(self, spaces: Iterable[int], reason: str) -> Flow:
        """Fix spaces; what comes of them is a space that is fixed for the same reason."""
        made = self._space(0, UNKNOWN)
        for space in (*spaces, made.space):
            self.fixed.setdefault(space, reason)
        return made

    def _around(self, name: str) -> list[int]:
        """The space that a layer makes, and the one that it reads."""
        return [self.outputs[name], self.inputs[name].space]

    def _visit(self, node: fx.Node) -> Flow:
        flows = [self._flows[read] for read in node.all_input_nodes]
        spaces = [flow.space for flow in flows]
        if node.op in ("placeholder", "output"):
            side = {"placeholder": "input", "output": "output"}[node.op]
            return self._fix(spaces, f"it is an {side} of the network")
        if node.op == "call_module":
            return self._module(str(node.target), flows)
        called, first = node.target, flows[0] if len(flows) == 1 else None
        if first and (called in POINTWISE_CALLS or called in TOGETHER):  # together with a number
            return first
        if first and first.layout == IMAGES.get(POOLING_CALLS.get(called, 0)):
            return first
        if first and called in (torch.flatten, "flatten") and flattens_all(node):
            return self._flatten(first)
        if len(flows) == 2 and called in TOGETHER:
            return self._join(flows[0], flows[1], node)
        return self._fix(spaces, f"{call_name(node)} is not understood")

    def _module(self, name: str, flows: list[Flow]) -> Flow:
        module, flow, spaces = self.modules[name], flows[0], [flow.space for flow in flows]
        role, dims, _ = kind(module)
        if name in self.outputs:
            spaces += self._around(name)
            return self._fix(spaces, f"module {name!r} is called more than once")
        if role in ("linear", "conv"):
            return self._layer(name, flow, IMAGES[dims] if role == "conv" else LAST)
        if role in ("norm", "prelu"):
            return self._scales(name, flow)
        if role == "flatten" and (module.start_dim, module.end_dim) == (1, -1):
            return self._flatten(flow)
        inside = flow.layout in (IMAGES.get(dims), UNKNOWN)  # not across the channels
        pools = role in ("max pool", "mean pool", "pad") and inside
        if role in ("pointwise", "nothing") or (pools and not getattr(module, "return_indices", 0)):
            return flow
        name_kind = f"module {name!r} ({type(module).__name__})"
        return self._fix(spaces, f"{name_kind} is not understood there")

    def _layer(self, name: str, flow: Flow, layout: str) -> Flow:
        """A Linear or Conv layer reads one space and makes another, a depthwise one the same."""
        module = self.modules[name]
        groups = 1 if layout == LAST else int(module.groups)
        makes, reads = len(module.weight), module.weight.shape[1] * groups
        self._reads(name, flow, reads, (LAST, FLATTENED) if layout == LAST else (layout,))
        made = self._space(makes, layout)
        if groups > 1:
            if not groups == reads == makes:
                both = (flow.space, made.space)
                self._fix(both, f"module {name!r} is a convolution in groups")
            elif flow.layout == layout:
                made = flow
            else:
                self._fix([made.space], f"module {name!r} is a depthwise convolution of it")
        self.outputs[name] = made.space
        return made

    def _scales(self, name: str, flow: Flow) -> Flow:
        """A batch normalisation or a PReLU has numbers of its own for each channel, or one for all."""
        module = self.modules[name]
        norm = kind(module).role == "norm"
        numbers = module.num_features if norm else module.num_parameters
        if norm or numbers > 1:
            self._reads(name, flow, numbers, (flow.layout,))
        else:
            self.inputs[name] = Inputs(flow.space, 0)
        self.outputs[name] = flow.space
        return flow

    def _reads(self, name: str, flow: Flow, inputs: int, layouts: tuple[str, ...]) -> None:
        """Note what a layer reads, and fix it where its channels do not lie along the inputs."""
        size = self.sizes[self.root(flow.space)]
        per_channel = inputs // size if flow.layout == FLATTENED else 1
        fits = flow.layout in layouts and inputs == per_channel * size
        if flow.layout != UNKNOWN and not fits:
            self._fix([flow.space], f"module {name!r} reads it along another dimension")
        self.inputs[name] = Inputs(flow.space, max(per_channel, 1))

    def _flatten(self, flow: Flow) -> Flow:
        """Channels come first, so each becomes height · width neighbours; rows stay as they are."""
        return Flow(flow.space, FLATTENED if flow.layout in IMAGES.values() else flow.layout)

    def _join(self, a: Flow, b: Flow, node: fx.Node) -> Flow:
        """What is added or multiplied entry by entry must be cut alike."""
        first, second = self.root(a.space), self.root(b.space)
        if not (a.layout == b.layout != UNKNOWN and self.sizes[first] == self.sizes[second]):
            reason = f"{call_name(node)} joins it with other channels or with an input"
            return self._fix([a.space, b.space], reason)
        self._parent[second] = first
        return a

    def _fix_shared(self, model: nn.Module) -> None:
        """Tensors that two modules own, or that the code reads without calling their module."""
        parameters = model.named_parameters(remove_duplicate=False)
        owned = [*parameters, *model.named_buffers(remove_duplicate=False)]
        owners = Counter(id(tensor) for _, tensor in owned)
        read = {str(node.target) for node in self.graph.nodes if node.op == "get_attr"}
        for key, tensor in owned:
            name = key.rpartition(".")[0]
            if name in self.outputs and (owners[id(tensor)] > 1 or key in read):
                self._fix(self._around(name), f"{key!r} is used in more than one place")
