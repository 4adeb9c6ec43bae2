"""One door to every way of removing units."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import structured
from teachkit.core import checks
from teachkit.core.types import Batch, Loss
from teachkit.neurons.chain import hidden
from teachkit.neurons.deletion import CRITERIA, greedy, quota, scores
from teachkit.neurons.merging import merge
from teachkit.neurons.repairing import repair, surgeon

METHODS: dict[str, str] = {
    "random": "delete units at random",
    "magnitude": "delete the units with the smallest weights",
    "taylor": "delete by the first-order change of the loss",
    "obd": "delete by the sum of the weights' saliencies",
    "leave_one_out": "delete by the measured change of the loss",
    "greedy": "delete one unit, measure all again, and so on",
    "merge weights": "merge units with similar incoming weights",
    "merge activations": "merge units that say similar things",
    "merge regression": "write a unit by all the others",
    "surgeon": "Optimal Brain Surgeon for units",
}


def delete(model: nn.Module, keep: Mapping[str, Tensor]) -> nn.Module:
    """A smaller network of the units kept, everything else as it was.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> delete(net, {"0": torch.tensor([True, False, True])})[2].in_features
    2
    """
    hidden(model)  # refuses what is not a chain
    return structured.shrink(model, keep)


def prune(
    model: nn.Module,
    batch: Batch,
    sparsity: float,
    method: str = "surgeon",
    *,
    repaired: bool = False,
    loss: Loss = cross_entropy,
    generator: torch.Generator | None = None,
) -> nn.Module:
    """A really smaller network without a share of the units of every hidden layer.

    Each layer loses ``masks.removed(units, sparsity)`` units: a quota, because one ranking over all
    layers may empty one of them.

    Args:
        model: a chain of Linear layers; it is unchanged.
        batch: (x, y).
        sparsity: the share that goes.
        method: one of ``METHODS``.
        repaired: refit the next layers by least squares after a deletion, see :func:`repair`.
            Merging by regression and the surgeon do so by themselves.
        loss: a mean loss, for the criteria that use one.
        generator: for "random".

    >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> batch = torch.rand(9, 2), torch.arange(9) % 2
    >>> prune(net, batch, 0.5)[0].out_features
    2

    """
    checks.model(model, checks.batch(batch)[0])
    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, got {method!r}")
    if repaired and method not in CRITERIA:
        raise ValueError(f"repaired is for {list(CRITERIA)}, got method {method!r}")
    if method == "surgeon":
        return surgeon(model, batch, sparsity)
    if method == "greedy":
        return greedy(model, batch, sparsity, loss)
    if method.startswith("merge "):
        return merge(model, batch, sparsity, method.removeprefix("merge "))
    ranked = scores(model, batch, method, loss, generator=generator)
    for name, values in ranked.items():
        quota(name, len(values), sparsity)
    keep = structured.keep_groups(ranked, sparsity)
    return repair(model, batch, keep) if repaired else delete(model, keep)
