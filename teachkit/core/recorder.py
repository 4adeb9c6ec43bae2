"""The one recorder of what flows through a network: the input and output of each call of a layer.

What it cannot see it refuses by name: a weight that is read without a call of its layer.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from teachkit.core import door
from teachkit.core.layers import UncoveredError, replaced, weighted
from teachkit.core.objective import eval_mode
from teachkit.core.reads import Reads
from teachkit.core.weights import prunable


class Call(NamedTuple):
    """One call of a layer: its name in the model, the layer, what it got and what it gave."""

    name: str
    layer: nn.Module
    input: Tensor
    output: Tensor


def record_calls(
    model: nn.Module,
    x: Tensor,
    at_call: Callable[[Call], Tensor | None],
    layers: Iterable[tuple[str, nn.Module]] | None = None,
    *,
    graph: bool = False,
) -> Tensor:
    """Run the model on x in evaluation mode, with ``at_call`` at each call of a layer; the output.

    A tensor that ``at_call`` returns takes the place of the layer's output. ``layers`` are all Linear
    and Conv layers by default; ``graph`` keeps what autograd needs to differentiate, and leaves it to
    the caller to look in the graph for weights that no call has read.

    Raises:
        UncoveredError: a prunable weight is read without a call of its layer.

    >>> seen = []
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> _ = record_calls(net, torch.ones(5, 2), lambda call: seen.append((call.name, call.output.shape)))
    >>> seen
    [('0', torch.Size([5, 3]))]

    """
    hooks = []
    reads = Reads(() if graph else prunable(model).items())

    def record(name: str) -> Callable[..., Tensor | None]:
        def at_end(layer: nn.Module, given: Any, named: Any, output: Tensor) -> Tensor | None:
            with reads.paused():
                return at_call(Call(name, layer, (*given, *named.values())[0], output))

        return at_end

    try:
        for name, layer in weighted(model) if layers is None else layers:
            hooks.append(layer.register_forward_hook(record(name), with_kwargs=True))
        with torch.set_grad_enabled(graph), eval_mode(model):
            output: Tensor = model(x) if graph else _watched(model, x, reads)
            return output
    finally:
        for hook in hooks:
            hook.remove()


def _watched(model: nn.Module, x: Tensor, reads: Reads) -> Tensor:
    """The output, where every prunable weight is read by calls of its own layer alone."""
    for name, layer in weighted(model):
        if replaced(layer):
            raise UncoveredError(
                f"layer {name!r} is not covered: {replaced(layer)}, which may read its weight otherwise"
            )
    with reads.calls(layer for _, layer in weighted(model)), reads:
        output: Tensor = model(x)
    for name in sorted(reads.outside):
        raise UncoveredError(
            f"the weight {name!r} is read without a call of its layer, so that what flows through it "
            "cannot be recorded"
        )
    return output


door.hold(globals())
