"""Why a Taylor criterion can lose to removing weights at random, and what repairs it.

For weight i and sample n let c_ni = −g_ni w_i + ½ h_ni w_i² be the change of that sample's loss
that the second-order Taylor polynomial predicts for removing the weight alone.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import masks, obd, taylor
from teachkit.core import checks, door
from teachkit.core.criteria import criterion
from teachkit.core.objective import refuse_sum_of
from teachkit.core.types import Batch, Criterion, Loss, Masks, Scores
from teachkit.engine.leave_one_out import leave_one_out
from teachkit.engine.moments import Spread, moments, samples
from teachkit.lab.evaluation import evaluate

__all__ = ["Account", "Spread", "absolute", "account", "changes", "coherence", "first_order"]
__all__ += ["leave_one_out", "leave_one_out_naive", "matched", "mean_plus_spread"]
__all__ += ["second_order", "spread", "stepwise", "sum_per_sample"]
LABELS = ("data", "labels")
CURVED = (*LABELS, "second order")


def predicted_change(g: Tensor, h: Tensor, w: Tensor) -> Tensor:
    """c = −g w + ½ h w², the change of the loss that is promised for w → 0.

    >>> predicted_change(torch.tensor([1.0, 1.0]), torch.tensor([2.0, 2.0]), torch.tensor([3.0, 0.5]))
    tensor([ 6.0000, -0.2500])
    """
    checks.same_shape(g=g, h=h, w=w)
    return -g * w + 0.5 * h * w**2


def changes(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Spread:
    """Mean and standard deviation over the samples of c_ni; UncoveredError as from ``obd.diagonal``."""
    return moments(model, batch, loss).change


@criterion("T1", passes=1, needs=LABELS, source="Molchanov et al. 2017, with the sign")
def first_order(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """T1 = −g w with its sign: what promises to lower the loss most goes first."""
    refuse_sum_of(model, batch, loss)
    g = taylor.gradient(model, batch, loss)
    return {name: -g[name] * w.detach() for name, w in masks.prunable(model).items()}


@criterion("T2", passes=3, needs=CURVED, source="LeCun, Denker & Solla 1989, with the gradient")
def second_order(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """T2 = −g w + ½ h w² with its sign, h the exact diagonal."""
    g, h = taylor.gradient(model, batch, loss), obd.diagonal(model, batch, loss)
    weights = masks.prunable(model).items()
    return {name: predicted_change(g[name], h[name], w.detach()) for name, w in weights}


@criterion("T2, absolute", passes=3, needs=CURVED, source="after Molchanov et al. 2017")
def absolute(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """|T2|: what promises to change the loss least, in either direction, goes first."""
    return {name: t.abs() for name, t in second_order(model, batch, loss).items()}


@criterion("SD", passes=4, needs=CURVED, source="after Engelbrecht 2001")
def spread(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """SD of c_ni over the samples: what does about the same to every sample goes first.

    SD(Σ c) ≤ Σ SD(c): the joint prediction of a set of low spreads varies little, however its members
    are correlated. Means bound nothing of the kind. Source: Engelbrecht, A new pruning heuristic based
    on variance analysis, 2001, for the idea.
    """
    return changes(model, batch, loss).sd


@criterion("MEAN + SD", passes=4, needs=CURVED, source="this course")
def mean_plus_spread(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy, *, weight: float = 1.0
) -> Scores:
    """MEAN + λ · SD of c_ni with λ = ``weight``: 0 is T2, large is the spread alone."""
    mean, sd = changes(model, batch, loss)
    return {name: m + weight * sd[name] for name, m in mean.items()}


def leave_one_out_naive(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """L(θ − w_i e_i) − L(θ), measured: a copy of the network without w_i for every weight."""
    before = evaluate(model, batch, loss).loss
    measured: Scores = {}
    for name, w in masks.prunable(model).items():
        alone = ~torch.eye(w.numel(), dtype=torch.bool, device=w.device)
        nets = (masks.apply(model, {name: mask.reshape(w.shape)}) for mask in alone)
        rises = [evaluate(net, batch, loss).loss - before for net in nets]
        measured[name] = w.new_tensor(rises).reshape(w.shape)
    return measured


class Account(NamedTuple):
    """What removing a set of weights was promised to do, and did: promised + cross + higher = actual.

    ``promised`` is Σ_i c_i of the single predictions, ``cross`` what ½ δᵀHδ adds beside its diagonal,
    ``higher`` the rest. ``loss`` is the loss before: a promise below −loss is impossible.
    """

    promised: float
    cross: float
    higher: float
    actual: float
    loss: float


def account(model: nn.Module, batch: Batch, kept: Masks, loss: Loss = cross_entropy) -> Account:
    """The promise of single predictions for a set of weights, against the truth."""
    it, before = obd.assumptions(model, batch, kept, loss), evaluate(model, batch, loss).loss
    return Account(it.saliency + it.gradient, it.cross, it.higher, it.actual, before)


def sum_per_sample(
    model: nn.Module, batch: Batch, kept: Masks, loss: Loss = cross_entropy
) -> Tensor:
    """Σ_i c_ni over the removed weights i, one number per sample (n,)."""
    weights = masks.prunable(model)
    given = checks.masks(kept, weights).items()
    gone = {name: torch.where(mask, 0.0, weights[name].detach()) for name, mask in given}
    parts = [
        [layer.change(gone[name]) for name, layer in part.items() if name in gone]
        for part in samples(model, batch, loss)
    ]
    return torch.cat([torch.stack(part).sum(0) for part in parts])


def coherence(model: nn.Module, batch: Batch, kept: Masks, loss: Loss = cross_entropy) -> float:
    """SD of Σ_i c_ni over the samples, in units of what it would be if the weights were independent.

    The unit is √(Σ_i SD(c_i)²). About 1 for a random set; m weights that do the same reach √m.
    """
    sd = changes(model, batch, loss).sd
    checks.masks(kept, sd)
    alone: float = sum(float((sd[n][~mask] ** 2).sum()) for n, mask in kept.items()) ** 0.5
    if not alone:
        raise ValueError("the removed weights change no sample's loss: there is nothing to compare")
    together = sum_per_sample(model, batch, kept, loss).std(correction=0)
    return float(together) / alone


def stepwise(
    model: nn.Module, batch: Batch, sparsity: float, steps: int, criterion: Criterion = second_order
) -> Iterator[tuple[nn.Module, Masks]]:
    """Prune in equal steps, with new scores before each and no training between.

    Yields the model and its masks after each step. As many steps as weights to remove: one at a time.
    """
    checks.whole("steps", steps, 1)
    checks.fraction("sparsity", sparsity)
    for step in range(1, steps + 1):
        ranked = masks.zeros_last(masks.complete(criterion(model, batch), model), model)
        kept = masks.keep_top(ranked, sparsity * step / steps)
        model = masks.apply(model, kept)
        yield model, kept


def matched(
    kept: Masks, key: Mapping[str, Tensor], generator: torch.Generator, *, bins: int = 50
) -> Masks:
    """A random set with as many weights from every bin of a key as the given set, layer by layer.

    The control for "it is only that these weights are small": with key = |w| the drawn set has the same
    sizes, with key = spread the same spreads, and is random otherwise. The bins are of equal count.
    """
    checks.whole("bins", bins, 1)
    checks.masks(kept, key)
    drawn: Masks = {}
    for name, mask in kept.items():
        order, old = key[name].reshape(-1).argsort(), mask.reshape(-1)
        new = torch.ones_like(old)
        for part in torch.tensor_split(order, min(bins, len(order))):
            chosen = torch.randperm(len(part), generator=generator, device=generator.device)
            new[part[chosen[: int((~old[part]).sum())].to(part.device)]] = False
        drawn[name] = new.reshape(mask.shape)
    return drawn


door.hold(globals())
