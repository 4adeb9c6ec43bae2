"""Weights that share values: k-means on a line, and networks whose shared values are trained.

On a line the clusters of k-means are intervals, cut half-way between neighbouring centres. So the weights
are sorted once; a round of Lloyd's algorithm is then a search for the k − 1 cuts and k differences of
running sums, whatever the number of weights.

A network with shared values is an :class:`teachkit.engine.sampled.Sampled` one that draws nothing: its φ
are the codebooks, and the weights are looked up in them in every pass. The gradient of a centre is the sum
of the gradients of its weights (Han, Mao & Dally, Deep Compression, ICLR 2016, section 3.3).
"""

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.types import Masks, Params
from teachkit.core.weights import prunable
from teachkit.engine.layerwise import with_matrices
from teachkit.engine.sampled import Sampled


class Shared(NamedTuple):
    """The centres (k,), rising, and which of them each weight takes; −1 where it is zero and stays so."""

    centres: Tensor
    labels: Tensor

    def dense(self) -> Tensor:
        """The weights, looked up."""
        return looked_up(self.centres, self.labels)


def kmeans(values: Tensor, k: int, *, rounds: int = 300) -> Shared:
    """Lloyd's algorithm on a line, from k centres at equal distances between the least and the largest.

    Each value goes to its nearest centre, of two to the lower, and each centre to the mean of its values;
    one without values stays. It ends where no value changes its centre, at a local minimum of the sum of
    squares. With few values, these are the centres. Han et al. found even distances better than a draw.

    >>> kmeans(torch.tensor([0.0, 0.1, 0.9, 1.0]), 2).centres.round(decimals=4)
    tensor([0.0500, 0.9500])
    """
    if checks.finite("values", values).ndim != 1 or not len(values):
        raise ValueError(f"values must have the shape (n,), n ≥ 1, got {tuple(values.shape)}")
    if not values.is_floating_point():
        raise TypeError(f"values must be of a floating type, got {values.dtype}")
    checks.whole("k", k, 1)
    checks.whole("rounds", rounds, 1)
    ordered, at = values.detach().double().sort(stable=True)
    few = ordered.unique()  # type: ignore[no-untyped-call]
    if len(few) <= k:
        return Shared(few.to(values.dtype), torch.searchsorted(few, values.detach().double()))
    sums = torch.cat([ordered.new_zeros(1), ordered.cumsum(0)])
    centres = torch.linspace(0, 1, k, device=values.device).double()
    centres = ordered[0] + centres * (ordered[-1] - ordered[0])
    cuts = _cuts(ordered, centres)
    for _ in range(rounds):
        counts, before = cuts.diff(), cuts
        means = sums[cuts].diff() / counts.clamp(min=1)
        centres = torch.where(counts > 0, means, centres)
        cuts = _cuts(ordered, centres)
        if torch.equal(cuts, before):
            break
    labels = torch.repeat_interleave(torch.arange(k, device=values.device), cuts.diff())
    return Shared(centres.to(values.dtype), torch.empty_like(at).scatter_(0, at, labels))


def share_layers(
    model: nn.Module, bits: int = 5, *, rounds: int = 300
) -> tuple[nn.Module, dict[str, Shared]]:
    """A new model whose weights that are not zero take one of 2^bits values of their tensor's codebook.

    Source: Han, Mao & Dally, Deep Compression, ICLR 2016, section 3.
    """
    checks.whole("bits", bits, 1, 16)
    shared = {n: _share(w.detach(), 2**bits, rounds) for n, w in prunable(model).items()}
    return with_matrices(model, {n: each.dense() for n, each in shared.items()}), shared


def sharing(model: nn.Module, shared: dict[str, Shared]) -> Sampled:
    """The network to train whose weights are looked up; its parameters are codebooks, biases and norms."""
    checks.entries("shared", {n: s.labels for n, s in shared.items()}, prunable(model))
    for name, each in shared.items():
        k = checks.finite(f"the centres of shared[{name!r}]", each.centres).numel()
        if each.centres.ndim != 1 or each.labels.is_floating_point() or int(each.labels.max()) >= k:
            raise ValueError(f"shared[{name!r}] must have a centre (k,) for each label, got {each}")
    labels = {name: each.labels for name, each in shared.items()}
    find = partial(_look_up, labels)
    net = Sampled(model, {name: each.centres for name, each in shared.items()}, find, find)
    for name in shared:
        net.model.get_parameter(name).requires_grad_(False)
    return net


def found(net: Sampled, shared: dict[str, Shared]) -> tuple[nn.Module, dict[str, Shared], Masks]:
    """What training has made of it: the ordinary network, its codebooks, and the masks of its zeros."""
    model, kept = net.bake()
    for name in shared:
        model.get_parameter(name).requires_grad_(True)
    _, phi = net.both()
    now = {name: each._replace(centres=phi[name].detach().clone()) for name, each in shared.items()}
    return model, now, kept


def looked_up(centres: Tensor, labels: Tensor) -> Tensor:
    """The centre of each label, 0 for −1."""
    return centres[labels.clamp(min=0)].masked_fill(labels < 0, 0.0)


def _look_up(labels: dict[str, Tensor], theta: Params, phi: Params) -> Params:
    return {name: looked_up(phi[name], at.to(phi[name].device)) for name, at in labels.items()}


def _share(w: Tensor, k: int, rounds: int) -> Shared:
    alive = w != 0
    labels = torch.full(w.shape, -1, device=w.device)
    if not alive.any():
        return Shared(w.new_zeros(1), labels)
    centres, chosen = kmeans(w[alive], k, rounds=rounds)
    labels[alive] = chosen
    return Shared(centres, labels)


def _cuts(ordered: Tensor, centres: Tensor) -> Tensor:
    """Where each cluster begins and ends among the ordered values, (k + 1,)."""
    inner = torch.searchsorted(ordered, (centres[:-1] + centres[1:]) / 2, right=True)
    ends = torch.tensor([0, len(ordered)], device=ordered.device)
    return torch.cat([ends[:1], inner, ends[1:]])
