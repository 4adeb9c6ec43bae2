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

from functools import cached_property
from itertools import product
from typing import Any

from torch import Tensor, fx, nn

from teachkit.core import checks
from teachkit.core.layers import does_more
from teachkit.engine.axes import MisfitError, StrangeError, UnclearError
from teachkit.engine.sizes import Ids
from teachkit.engine.ties import Ties
from teachkit.engine.tracing import call_name, shapes, traced
from teachkit.engine.walking import Walk

RANKS, INPUTS = range(1, 6), 2  # numbers of dimensions that are tried, for so many inputs at most


class Channels:
    """The units of a network.

    ``ties`` is their register; ``outputs`` says by layer which units it puts out, in the order of the
    network; ``traced`` are its graphs.
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
        self.traced, self._guessed = traced(model), False
        sizes: dict[fx.Node, Any] = {}
        if x is not None:
            sizes = shapes(self.traced, model, x if isinstance(x, tuple) else (x,))
        for graph in self.traced.graphs:
            self._follow(graph, sizes if next(iter(graph.nodes)) in sizes else {})

    @property
    def outputs(self) -> dict[str, Ids]:
        """By layer the units that it puts out."""
        return self.ties.made

    def why_fixed(self, ids: Ids) -> str | None:
        """The reason why one of these units cannot be removed, None if all can."""
        known = (self.ties.reasons.get(int(each)) for each in self.ties.classes[ids[ids >= 0]])
        why = next((why for why in known if why), None)
        more = "; how many dimensions the input has is not known: give it as x"
        return why and why + more * self._guessed

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
            Walk(self.ties, self.modules, sizes, (StrangeError, MisfitError)).run(graph)
            return
        except UnclearError:
            self.ties.back(mark)
        self._guessed = True
        for ranks in product(RANKS, repeat=len(inputs)) if self._guesses(inputs, sizes) else ():
            mark = self.ties.mark()
            guess = {node: (None,) * rank for node, rank in zip(inputs, ranks, strict=True)}
            try:
                Walk(self.ties, self.modules, guess, (StrangeError, UnclearError)).run(graph)
                fits = True
            except MisfitError:
                self.ties.back(mark)
        if not fits:
            Walk(self.ties, self.modules, sizes, (StrangeError, MisfitError, UnclearError)).run(
                graph
            )


def _is_used(node: fx.Node) -> bool:
    """True for an input that more than checks look at."""
    names = {call_name(user) for user in node.users}
    return not all(" 'eq'" in name or "assert" in name for name in names)
