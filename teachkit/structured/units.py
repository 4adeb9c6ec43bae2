"""Scores of whole units, and how large a network is without some of them."""

from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import taylor
from teachkit.core.types import Batch, Loss, Scores
from teachkit.structured.graph import Channels
from teachkit.structured.groups import wide
from teachkit.structured.shrinking import Keep, coupled, resolve, selections, tensors

METHODS = ("l1", "l2", "taylor")


class Count(NamedTuple):
    """Parameters, and bytes of parameters and buffers together."""

    parameters: int
    bytes: int


def unit_scores(
    model: nn.Module,
    method: str = "l2",
    batch: Batch | None = None,
    loss: Loss = cross_entropy,
) -> Scores:
    """A score for each unit that can be removed, (outputs,) by layer; a larger score stays.

    With w the unit's incoming weights: "l1" is Σ|w|, "l2" is √Σw², and "taylor" is |Σ g w|, the
    first-order change of the loss if they all went to zero, with g the gradient of the mean loss
    (Molchanov et al. 2019, with the square left out). Coupled layers share their units: the sums run over
    all of them, and the result stands under the name of the first.

    Args:
        model: see :func:`shrink`.
        method: "l1", "l2" or "taylor".
        batch: (x, y), for "taylor" alone.
        loss: a mean loss, for "taylor" alone.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, -2.0]]))
    >>> unit_scores(net)
    {'0': tensor([5., 2.])}

    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, got {method!r}")
    groups = coupled(model)
    if method == "taylor":
        if batch is None:
            raise ValueError("method 'taylor' needs a batch (x, y)")
        gradient = taylor.gradient(model, batch, loss)

    def parts(name: str) -> Tensor:
        weight: Tensor = model.get_submodule(name).weight.detach()  # type: ignore[operator]
        weight = weight.to(wide(weight.dtype))
        if method == "taylor":
            weight = weight * gradient[f"{name}.weight"]
        values = {"l1": weight.abs(), "l2": weight**2, "taylor": weight}[method]
        return values.reshape(len(values), -1).sum(1)

    totals = {names[0]: torch.stack([parts(name) for name in names]).sum(0) for names in groups}
    finish = {"l1": Tensor.clone, "l2": Tensor.sqrt, "taylor": Tensor.abs}[method]
    return {name: finish(total) for name, total in totals.items()}


def count(model: nn.Module) -> Count:
    """The parameters of a network, and the bytes of its parameters and buffers.

    >>> count(nn.Linear(3, 2).float())
    Count(parameters=8, bytes=32)
    """
    parameters = list(model.parameters())
    stored = [*parameters, *model.buffers()]
    return Count(
        sum(p.numel() for p in parameters), sum(t.numel() * t.element_size() for t in stored)
    )


def predict(model: nn.Module, keep: Keep) -> Count:
    """What :func:`count` will say of ``shrink(model, keep)``, by arithmetic alone.

    A layer keeps (outputs left) · (inputs left) · (kernel size) weights.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).float()
    >>> predict(net, {"0": torch.tensor([True, False, True])})
    Count(parameters=9, bytes=36)
    """
    channels = Channels(model)
    parameters, size = count(model)
    for name, (rows, columns) in selections(channels, resolve(channels, keep)).items():
        module = channels.modules[name]
        for tensor, dimensions in tensors(module).items():
            value: Tensor = getattr(module, tensor)
            shape = list(value.shape)
            for dimension, mask in enumerate((rows, columns)[:dimensions]):
                if mask is not None:
                    shape[dimension] = int(mask.sum())
            gone = value.numel() - prod(shape)
            parameters -= gone if isinstance(value, nn.Parameter) else 0
            size -= gone * value.element_size()
    return Count(parameters, size)
