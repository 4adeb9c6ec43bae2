"""The one recorder of what flows through a network: the input and output of each call of a layer."""

from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from teachkit.core import door
from teachkit.core.layers import weighted
from teachkit.core.objective import eval_mode


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
    and Conv layers by default; ``graph`` keeps what autograd needs to differentiate.

    >>> seen = []
    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    >>> _ = record_calls(net, torch.ones(5, 2), lambda call: seen.append((call.name, call.output.shape)))
    >>> seen
    [('0', torch.Size([5, 3]))]
    """
    hooks = []

    def record(name: str) -> Callable[..., Tensor | None]:
        return lambda layer, given, named, output: at_call(
            Call(name, layer, (*given, *named.values())[0], output)
        )

    try:
        for name, layer in weighted(model) if layers is None else layers:
            hooks.append(layer.register_forward_hook(record(name), with_kwargs=True))
        with torch.set_grad_enabled(graph), eval_mode(model):
            output: Tensor = model(x)
            return output
    finally:
        for hook in hooks:
            hook.remove()


door.hold(globals())
