"""Structured pruning: when zeros become smaller files and faster layers.

A mask alone saves nothing: a zero takes as many bytes, and as long to multiply, as any other number.
It pays where whole groups go, so that dense layers get smaller, or where zeros are not stored.

Sources: Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017 (Σ|w| of a filter); Molchanov et
al., Importance Estimation for Neural Network Pruning, CVPR 2019; Mao et al., Exploring the Granularity
of Sparsity in Convolutional Neural Networks, CVPR Workshops 2017.
"""

import copy
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import taylor
from teachkit.core import checks, door
from teachkit.core.layers import UncoveredError, chain
from teachkit.core.objective import eval_mode
from teachkit.core.types import Batch, Loss, Scores
from teachkit.engine.groups import (
    GRANULARITIES,
    group_ids,
    group_masks,
    group_scores,
    keep_groups,
    wide,
)
from teachkit.engine.shrinking import Inputs, Keep, coupled, removal, shrink, silence
from teachkit.engine.weighted import outputs_first
from teachkit.lab.storage import stored
from teachkit.lab.timing import break_even, csr, latencies

__all__ = [
    "GRANULARITIES", "Count", "break_even", "count", "coupled", "csr", "csr_parts", "cut",
    "group_ids", "group_mask_naive", "group_masks", "group_of", "group_scores", "groups", "keep_groups",
    "latencies", "mean_score", "predict", "shrink", "shrink_chain", "silence", "stored", "unit_scores",
]  # fmt: skip

Index = tuple[int, ...]


def group_of(index: Index, shape: Index, granularity: str, block: Index = (4, 4)) -> Index:
    """The group that one weight W[o, i, h, w] of a layer belongs to; GRANULARITIES says it in words.

    >>> group_of((5, 2, 0, 1), (6, 4, 3, 3), "kernel"), group_of((5, 2), (6, 4), "block", (2, 2))
    ((5, 2), (2, 1))
    """
    checks.whole("each side of block", min(block), 1)
    o, i, *place = index
    column = int(np.ravel_multi_index(index[1:], shape[1:]))  # in the matrix (outputs, the rest)
    groups = {
        "connection": index,
        **dict.fromkeys(("row", "filter"), (o,)),
        **dict.fromkeys(("column", "channel"), (i,)),
        "kernel": (o, i),
        "position": tuple(place),
        "block": (o // block[0], column // block[1]),
    }
    if granularity not in groups:
        raise ValueError(f"granularity must be one of {list(groups)}, got {granularity!r}")
    return groups[granularity]


def groups(shape: Index, granularity: str, block: Index = (4, 4)) -> dict[Index, list[Index]]:
    """The weights of every group: walk through all weights and put each into its own.

    >>> groups((2, 2), "column")
    {(0,): [(0, 0), (1, 0)], (1,): [(0, 1), (1, 1)]}
    """
    members: dict[Index, list[Index]] = {}
    for index in product(*map(range, shape)):
        members.setdefault(group_of(index, shape, granularity, block), []).append(index)
    return dict(sorted(members.items()))


def group_mask_naive(
    score: Tensor, sparsity: float, granularity: str, block: Index = (4, 4)
) -> Tensor:
    """Remove round(sparsity · groups) groups of one layer, those with the smallest mean score.

    >>> group_mask_naive(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 0.5, "row")
    tensor([[False, False],
            [ True,  True]])
    """
    members = reversed(groups(tuple(score.shape), granularity, block).values())
    ranked = sorted(members, key=partial(mean_score, score))  # of equal groups the first stays
    kept = torch.ones_like(score, dtype=torch.bool)
    for weights in ranked[: round(sparsity * len(ranked))]:
        kept[tuple(zip(*weights, strict=True))] = False
    return kept


def mean_score(score: Tensor, weights: Sequence[Index]) -> float:
    """The mean score of the weights of a group."""
    if not len(weights):
        raise ValueError("weights must not be empty: a group has a weight")
    return sum(float(score[at]) for at in weights) / len(weights)


METHODS: dict[str, Callable[[Tensor], Tensor]] = {
    "l1": lambda w: w.abs().sum(1),
    "l2": lambda w: (w**2).sum(1).sqrt(),
    "taylor": lambda gw: gw.sum(1).abs(),
}


def unit_scores(
    model: nn.Module, method: str = "l2", batch: Batch | None = None, loss: Loss = cross_entropy
) -> Scores:
    """A score for each unit that can be removed, (outputs,) by layer; a larger score stays.

    With w the unit's incoming weights: "l1" is Σ|w|, "l2" is √Σw², and "taylor" is |Σ g w|, the
    first-order change of the mean loss on the batch if they all went to zero. Coupled layers share
    their units: the sums run over all of them, and stand under the name of the first.

    >>> net = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 1))
    >>> _ = net[0].weight.data.copy_(torch.tensor([[3.0, 4.0], [0.0, -2.0]]))
    >>> unit_scores(net)
    {'0': tensor([5., 2.])}
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {list(METHODS)}, got {method!r}")
    if method == "taylor" and batch is None:
        raise ValueError("method 'taylor' needs a batch (x, y)")
    w = {name: wide(p.detach()) for name, p in model.named_parameters()}
    if method == "taylor" and batch:
        w = {name: w[name] * g for name, g in taylor.gradient(model, batch, loss).items()}
    scores = {}
    for names in coupled(model):
        rows = [outputs_first(model.get_submodule(n), w[f"{n}.weight"]) for n in names]
        scores[names[0]] = METHODS[method](torch.cat(rows, 1))
    return scores


def cut(layer: nn.Module, outputs: Sequence[int], inputs: Sequence[int]) -> nn.Module:
    """A layer with some of its outputs, rows of W, and some of its inputs, columns of W.

    A batch normalisation has a scale, a shift, a mean and a variance for each channel.

    >>> cut(nn.Linear(5, 4), [0, 3], [1, 2, 4]), cut(nn.BatchNorm1d(4), [0, 2], [0, 2]).num_features
    (Linear(in_features=3, out_features=2, bias=True), 2)
    """
    small = copy.deepcopy(layer)
    for value in small.state_dict(keep_vars=True).values():
        if value.ndim:  # the count of batches has no channels
            value.data = value.data[outputs][:, inputs] if value.ndim > 1 else value.data[outputs]
    for side in ("out_features", "out_channels", "num_features", "in_features", "in_channels"):
        if hasattr(small, side):
            setattr(small, side, len(inputs if side.startswith("in") else outputs))
    return small


def shrink_chain(net: nn.Sequential, x: Tensor, keep: Keep) -> nn.Sequential:
    """Real removal by hand in a chain: what one layer loses, the next does not read.

    ``alive`` lists the channels that are left; a flatten turns each into height · width neighbours,
    as the shape of the data x tells.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> shrink_chain(net, torch.ones(1, 2), {"0": torch.tensor([True, False, True])})[2]
    Linear(in_features=2, out_features=1, bias=True)
    """
    alive, small = list(range(x.shape[1])), list[nn.Module]()
    for name, layer in chain(net):
        if isinstance(layer, nn.Linear | nn.Conv2d) and getattr(layer, "groups", 1) == 1:
            outputs = [o for o in range(len(layer.weight)) if name not in keep or keep[name][o]]
            small.append(cut(layer, outputs, alive))
            alive = outputs
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            small.append(cut(layer, alive, alive))
        elif next(layer.parameters(), None) is None:
            small.append(copy.deepcopy(layer))
        else:
            raise UncoveredError(f"{type(layer).__name__} is not cut by hand; shrink cuts it")
        if isinstance(layer, nn.Flatten):
            alive = [c * x[0, 0].numel() + p for c in alive for p in range(x[0, 0].numel())]
        with torch.no_grad(), eval_mode(layer):
            x = layer(x)
    return nn.Sequential(*small)


class Count(NamedTuple):
    """Parameters, and bytes of parameters and buffers together."""

    parameters: int
    bytes: int


def count(model: nn.Module) -> Count:
    """Count a network's numbers.

    >>> count(nn.Linear(3, 2).float())
    Count(parameters=8, bytes=32)
    """
    size = sum(t.numel() * t.element_size() for t in [*model.parameters(), *model.buffers()])
    return Count(sum(p.numel() for p in model.parameters()), size)


def predict(model: nn.Module, keep: Keep, x: Inputs = None) -> Count:
    """What :func:`count` will say of ``shrink(model, keep)``, by arithmetic alone.

    A layer keeps (outputs left) · (inputs left) · (kernel size) weights.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)).float()
    >>> predict(net, {"0": torch.tensor([True, False, True])})
    Count(parameters=9, bytes=36)
    """
    parameters, size = count(model)
    for part in removal(model, keep, x):
        gone = part.tensor.numel() - part.left
        parameters -= gone * isinstance(part.tensor, nn.Parameter)
        size -= gone * part.tensor.element_size()
    return Count(parameters, size)


def csr_parts(matrix: Tensor) -> tuple[list[float], list[int], list[int]]:
    """Compressed sparse rows by hand: the nonzero numbers, their columns, and where each row begins.

    Below half zeros this saves nothing in float32: a column takes 4 bytes, too.

    >>> csr_parts(torch.tensor([[0.0, 2.0, 0.0], [3.0, 0.0, 4.0]]))
    ([2.0, 3.0, 4.0], [1, 0, 2], [0, 1, 3])
    """
    values, columns, starts = list[float](), list[int](), [0]
    for row in matrix:
        columns += row.nonzero().flatten().tolist()
        values += row[row != 0].tolist()
        starts.append(len(values))
    return values, columns, starts


door.hold(globals())
