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
from teachkit.core import checks
from teachkit.core.objective import eval_mode, measured
from teachkit.core.types import Batch, Loss, Masks, Scores
from teachkit.lab.evaluation import evaluate
from teachkit.lab.rounds import Criterion
from teachkit.obd import backward
from teachkit.obd.activations import DERIVATIVES, SMOOTH
from teachkit.obd.chain import chain
from teachkit.obd.stages import Conv


def changes(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> obd.Spread:
    """Mean and standard deviation over the samples of c_ni, for every prunable weight.

    Raises:
        ValueError: a network or loss that ``obd.per_sample`` does not cover.

    """
    return obd.per_sample(model, batch, loss).change


def first_order(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """T1 = −g w with its sign: what promises to lower the loss most goes first.

    Source of the first-order criterion: Molchanov et al. 2017, who take the absolute value.
    """
    g = taylor.gradient(model, batch, loss)
    return {name: -g[name] * w.detach() for name, w in masks.prunable(model).items()}


def second_order(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """T2 = −g w + ½ h w² with its sign, h the exact diagonal."""
    first, saliency = first_order(model, batch, loss), obd.scores(model, batch, loss)
    return {name: first[name] + saliency[name] for name in first}


def absolute(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """|T2|: what promises to change the loss least, in either direction, goes first."""
    return {name: t.abs() for name, t in second_order(model, batch, loss).items()}


def spread(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """SD of c_ni over the samples: what does about the same to every sample goes first.

    For any set of weights SD(Σ c) ≤ Σ SD(c), so a set of low spreads has a joint prediction that
    varies little, however its members are correlated. Means bound nothing of the kind.
    Source: Engelbrecht, A new pruning heuristic based on variance analysis, 2001, for the idea.
    """
    return changes(model, batch, loss).sd


def dial(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy, *, weight: float = 1.0
) -> Scores:
    """MEAN + λ · SD of c_ni with λ = ``weight``: 0 is T2, large is the spread alone."""
    if not weight >= 0:
        raise ValueError(f"weight must not be negative, got {weight!r}")
    found = changes(model, batch, loss)
    return {name: m + weight * found.sd[name] for name, m in found.mean.items()}


def leave_one_out(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """L(θ − w_i e_i) − L(θ), measured for every prunable weight: no Taylor polynomial at all.

    Removing W_ij changes output i of its layer alone, by −W_ij a_j; only what comes after is run
    again, a row of weights at a time.

    Raises:
        ValueError: the network is not a chain of known layers, or has a convolution.

    """
    x, y = checks.batch(batch)
    names = {id(p): name for name, p in checks.model(model, x).named_parameters()}
    layers = chain(model)
    if any(isinstance(layer, nn.Conv2d) for layer in layers):
        raise obd.UncoveredError("leave_one_out covers Linear layers; the model has a Conv2d")
    found: Scores = {}
    with torch.no_grad(), eval_mode(model):
        for at, layer in enumerate(layers):
            a, x = x, layer(x)
            if isinstance(layer, nn.Linear):
                rest = nn.Sequential(*layers[at + 1 :])
                found[names[id(layer.weight)]] = _each_alone(layer.weight, a, x, rest, y, loss)
    return found


def _each_alone(
    W: Tensor, a: Tensor, z: Tensor, rest: nn.Sequential, y: Tensor, loss: Loss
) -> Tensor:
    """The change of the loss for each weight of one layer, with inputs a and outputs z."""
    before = measured(loss, rest(z), y)
    activation, following = _split(rest)
    changed = torch.empty_like(W)
    for i, row in enumerate(W):
        own = z[:, i : i + 1]
        for columns in torch.split(torch.arange(len(row)), max(1, 2**21 // z.numel())):
            # The activation acts on each unit alone: after it, only unit i differs.
            moved = activation(own - row[columns] * a[:, columns]) - activation(own)
            outputs = _run(following, activation(z), moved.T, i)
            changed[i, columns] = torch.stack([measured(loss, o, y) for o in outputs])
    return changed - before


def _split(rest: nn.Sequential) -> tuple[nn.Sequential, nn.Sequential]:
    """The layers up to the next that mixes units or treats them differently, and those after."""
    alone = (*DERIVATIVES, *SMOOTH, nn.Identity, nn.Dropout)
    cut = next((k for k, layer in enumerate(rest) if not isinstance(layer, alone)), len(rest))
    layers = list(rest)
    return nn.Sequential(*layers[:cut]), nn.Sequential(*layers[cut:])


def _run(following: nn.Sequential, h: Tensor, moved: Tensor, i: int) -> Tensor:
    """The outputs for h (n, units) with moved (k, n) added to unit i: (k, n, ...)."""
    if len(following) and isinstance(following[0], nn.Linear):
        step = following[0].weight[:, i]
        u = following[0](h) + moved[:, :, None] * step
        following = nn.Sequential(*list(following)[1:])
    else:
        u = h.expand(len(moved), *h.shape).clone()
        u[:, :, i] += moved
    output: Tensor = following(u.flatten(0, 1))
    return output.reshape(len(moved), len(h), *output.shape[1:])


class Account(NamedTuple):
    """What removing a set of weights was promised to do, and did.

    ``promised`` is Σ_i c_i of the single predictions, ``cross`` what ½ δᵀHδ adds beside its
    diagonal, ``higher`` the rest; the three add up to ``actual``. ``loss`` is the loss before: a
    promise below −loss is impossible, as no loss is negative.
    """

    promised: float
    cross: float
    higher: float
    actual: float
    loss: float


def account(model: nn.Module, batch: Batch, kept: Masks, loss: Loss = cross_entropy) -> Account:
    """The promise of single predictions for a set of weights, against the truth."""
    parts = obd.assumptions(model, batch, kept, loss)
    before = evaluate(model, batch, loss).loss
    promised = parts.saliency + parts.gradient
    return Account(promised, parts.cross, parts.higher, parts.actual, before)


def sum_per_sample(
    model: nn.Module, batch: Batch, kept: Masks, loss: Loss = cross_entropy
) -> Tensor:
    """Σ_i c_ni over the removed weights i, one number per sample (n,)."""
    weights = masks.prunable(model)
    gone = {
        name: torch.where(mask, 0.0, weights[name].detach())
        for name, mask in checks.masks(kept, weights).items()
    }
    parts = []
    for part in backward.chunks(model, batch, loss):
        sums = [_layer_sum(layer, gone[name]) for name, layer in part.items() if name in gone]
        parts.append(torch.stack(sums).sum(0))
    return torch.cat(parts)


def _layer_sum(layer: backward.Layer, w: Tensor) -> Tensor:
    """Σ over one layer's removed weights of −g_n w + ½ h_n w², (n,)."""
    flat = w.reshape(len(w), -1)
    if isinstance(layer.stage, Conv):
        g = layer.stage.per_weight(layer.delta[:, None], layer.stage.patches())[:, 0]
        return (-g * flat + 0.5 * layer.curvature * flat**2).sum((1, 2))
    a = layer.stage.a
    return (0.5 * layer.curvature * (a**2 @ (flat**2).T) - layer.delta * (a @ flat.T)).sum(1)


def coherence(model: nn.Module, batch: Batch, kept: Masks, loss: Loss = cross_entropy) -> float:
    """SD of Σ_i c_ni over the samples, in units of what it would be if the weights were independent.

    The unit is √(Σ_i SD(c_i)²). About 1 for a random set; m weights that do the same reach √m.
    """
    sd = changes(model, batch, loss).sd
    variances = [float((sd[name][~mask] ** 2).sum()) for name, mask in kept.items()]
    alone: float = sum(variances) ** 0.5
    if not alone:
        raise ValueError(
            "the removed weights change no sample's loss, so there is nothing to compare"
        )
    together = sum_per_sample(model, batch, kept, loss).std(correction=0)
    return float(together) / alone


def stepwise(
    model: nn.Module,
    batch: Batch,
    sparsity: float,
    steps: int,
    criterion: Criterion = second_order,
    loss: Loss = cross_entropy,
) -> Iterator[tuple[nn.Module, Masks]]:
    """Prune in equal steps, with new scores before each and no training between.

    Yields the model and its masks after each step. As many steps as weights to remove is one at a
    time.
    """
    checks.whole("steps", steps, 1)
    checks.fraction("sparsity", sparsity)
    for step in range(1, steps + 1):
        ranked = masks.zeros_last(criterion(model, batch, loss), model)
        kept = masks.keep_top(ranked, sparsity * step / steps)
        model = masks.apply(model, kept)
        yield model, kept


def matched(
    kept: Masks, key: Mapping[str, Tensor], generator: torch.Generator, *, bins: int = 50
) -> Masks:
    """A random set with as many weights from every bin of a key as the given set, layer by layer.

    The control for "it is only that these weights are small": with key = |w| the drawn set has
    the same sizes, with key = spread the same spreads, and is random otherwise.

    Args:
        kept: the masks of the set to imitate.
        key: what to match, one number per weight.
        generator: a generator of its own.
        bins: how many bins of equal count in each layer.

    """
    checks.whole("bins", bins, 1)
    drawn: Masks = {}
    for name, mask in kept.items():
        order = key[name].reshape(-1).argsort()
        new = torch.ones(mask.numel(), dtype=torch.bool)
        for part in torch.tensor_split(order, min(bins, len(order))):
            gone = int((~mask.reshape(-1)[part]).sum())
            new[part[torch.randperm(len(part), generator=generator)[:gone]]] = False
        drawn[name] = new.reshape(mask.shape)
    return drawn
