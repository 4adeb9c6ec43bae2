"""Why a Taylor criterion can lose to removing weights at random, and what repairs it.

For weight i and sample n let c_ni = −g_ni w_i + ½ h_ni w_i² be the change of that sample's loss
that the second-order Taylor polynomial predicts for removing the weight alone.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import masks, obd, taylor
from teachkit.core import checks, door
from teachkit.core.criteria import criterion
from teachkit.core.objective import refuse_sum_of
from teachkit.core.types import Batch, Criterion, Loss, Masks, Params, Scores
from teachkit.engine import joint, shifts
from teachkit.engine.controls import directed, matched, part
from teachkit.engine.leave_one_out import leave_one_out
from teachkit.engine.moments import Spread, moments, samples
from teachkit.lab.evaluation import evaluate

__all__ = ["Account", "Split", "Spread", "absolute", "account", "agreement", "changes", "coherence"]
__all__ += ["directed", "first_order", "joint_cost", "joint_scores", "leave_one_out", "matched"]
__all__ += ["mean_plus_spread", "part", "pushes", "repair", "repair_naive", "second_order", "split"]
__all__ += ["spread", "stepwise", "sum_per_sample"]
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


def pushes(model: nn.Module, x: Tensor, kept: Masks) -> Tensor:
    """J δ: by how much the removals push each output of each sample, to first order, (n, outputs)."""
    return joint.pushes(model, x, masks.change(model, kept))


def joint_cost(model: nn.Module, batch: Batch, kept: Masks, loss: Loss = cross_entropy) -> float:
    """½ δᵀGδ: what the pushes cost together, with the Gauss–Newton matrix G; never negative."""
    return joint.joint_curvature(model, batch, masks.change(model, kept), loss)


def agreement(model: nn.Module, x: Tensor, kept: Masks) -> float:
    """How far the removals push their units the same way: 1 all, about 1/√m for m in a unit by chance.

    Removing w_i pushes its unit by −w_i ā_i, with ā the mean inputs. Σ over the units of |Σ_i push|
    in units of Σ |push|.
    """
    a = shifts.mean_inputs(model, x)
    push = masks.change(model, checks.masks(kept, a))
    rows = [(step * a[name]).flatten(1) for name, step in push.items()]
    together = sum(float(row.sum(1).abs().sum()) for row in rows)
    apart = sum(float(row.abs().sum()) for row in rows)
    if not apart:
        raise ValueError("the removed weights push no unit: there is nothing that could agree")
    return together / apart


class Split(NamedTuple):
    """½ δᵀHδ of a step δ = s + r: ``mean`` of s, ``mixed`` sᵀHr, ``rest`` of r; they add up.

    s is the step of the biases that shifts each unit as δ shifts it on average, r what is left of δ:
    it shifts each unit by nothing on average and by something on each sample.
    """

    mean: float
    mixed: float
    rest: float


def split(model: nn.Module, batch: Batch, kept: Masks, loss: Loss = cross_entropy) -> Split:
    """The joint second-order change of the removals, split into their mean shift and the rest."""
    delta = masks.change(model, checks.masks(kept, masks.prunable(model)))
    s = shifts.mean_step(model, batch[0], delta)
    rest = delta | {name: -shift for name, shift in s.items()}

    def curved(step: Params) -> float:
        orders = (taylor.predicted_change(model, batch, step, loss, order=k) for k in (2, 1))
        return float(next(orders) - next(orders))

    whole, mean, left = curved(delta), curved(s), curved(rest)
    return Split(mean, whole - mean - left, left)


def repair_naive(model: nn.Module, pruned: nn.Module, x: Tensor) -> nn.Module:
    """:func:`repair` for a chain of layers: x runs through the two networks side by side."""
    mended = masks.apply(pruned, {})
    a = z = x
    for old, new in zip(model.children(), mended.children(), strict=True):
        a, z = old(a).detach(), new(z).detach()
        if isinstance(new, nn.Linear):
            new.bias.data += a.mean(0) - z.mean(0)
            z += a.mean(0) - z.mean(0)
    return mended


def repair(model: nn.Module, pruned: nn.Module, x: Tensor, *, spread: bool = False) -> nn.Module:
    """Give each unit of the pruned network the mean over x that it had before: only biases move.

    Layer by layer: b ← b + (mean of z before) − (mean of z now). With ``spread`` the unit's weights
    are first scaled by (SD before) / (SD now). No labels, no training. Source: Nagel et al., Data-Free
    Quantization, ICCV 2019 (bias correction); Jordan et al., REPAIR, ICLR 2023 (both).
    """
    return shifts.restore(model, pruned, x, spread=spread)


@criterion(
    "joint",
    passes=30,
    needs=("data", "second order"),
    source="after Yu et al. 2022",
    limit=joint.LIMIT,
)
def joint_scores(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy, *, at_once: int = 1
) -> Scores:
    """The place in the order in which weights go, each time the one that ½ δᵀGδ minds least.

    ``at_once`` weights go by the same costs before they are computed anew. G comes from the first 400
    samples of the batch, in whatever order they are; it has n² numbers for n weights.
    Source: Yu, Serra, Ramalingam & Zhe, The Combinatorial Brain Surgeon, ICML 2022, for minding the
    sum; without their update.
    """
    checks.whole("at_once", at_once, 1)
    return joint.removal_order(model, batch, loss, at_once=at_once)


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


door.hold(globals())
