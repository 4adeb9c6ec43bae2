"""Optimal Brain Damage: saliencies, pruning, the recipe, and what the method assumes."""

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from torch import nn
from torch.nn.functional import cross_entropy

from teachkit import masks, taylor
from teachkit.core import checks
from teachkit.core.types import Batch, Data, Loss, Masks, Scores
from teachkit.lab.rounds import Criterion, Round, by_criterion, retrain
from teachkit.obd.estimates import row_sums
from teachkit.obd.exact import diagonal


def scores(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """The saliency s_i = ½ h_ii w_i² of every prunable weight.

    The change of the loss that a quadratic model with a diagonal Hessian and no gradient predicts
    for removing weight i. Negative where the curvature is.
    Source: LeCun, Denker & Solla, Optimal Brain Damage, 1989, equation 5.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(net.weight.new_tensor([[3.0, 1.0]]))
    >>> batch = net.weight.new_tensor([[1.0, 2.0], [3.0, 0.0]]), net.weight.new_zeros(2, 1)
    >>> scores(net, batch, nn.functional.mse_loss)
    {'weight': tensor([[45.,  2.]])}
    """
    h = diagonal(model, batch, loss)
    return {name: 0.5 * h[name] * w.detach() ** 2 for name, w in masks.prunable(model).items()}


def row_sum_scores(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """The trap as a criterion: ½ r_i w_i² with the row sums r of each tensor's Hessian for h.

    Under softmax the last layer's sums are exactly zero. They are rounded to 12 digits, so that
    what rounding has left of a zero does not rank it.
    """
    r = row_sums(model, batch, loss)
    weights = masks.prunable(model).items()
    return {name: 0.5 * r[name].round(decimals=12) * w.detach() ** 2 for name, w in weights}


def prune(
    model: nn.Module,
    batch: Batch,
    sparsity: float,
    *,
    loss: Loss = cross_entropy,
    scope: str = "global",
) -> tuple[nn.Module, Masks]:
    """A new model without the weights of least saliency, and its masks.

    Args:
        model: any module; it is unchanged.
        batch: (x, y) on which the curvature is measured.
        sparsity: fraction of the prunable weights that are zero afterwards; zeros from before count.
        loss: a mean loss.
        scope: "global" or "layer", see ``masks.keep_top``.

    """
    ranked = masks.zeros_last(scores(model, batch, loss), model)
    kept = masks.keep_top(ranked, sparsity, scope)
    return masks.apply(model, kept), kept


class Recipe(NamedTuple):
    """A network pruned step by step: the network, its masks, and the record of each round."""

    model: nn.Module
    masks: Masks
    rounds: list[Round]


def recipe(
    model: nn.Module,
    data: Data,
    sparsities: Sequence[float],
    *,
    epochs: int = 5,
    criterion: Criterion = scores,
    loss: Loss = cross_entropy,
    seed: int = 0,
    progress: bool = True,
) -> Recipe:
    """Prune a trained network a little, retrain it, and repeat.

    Saliencies are computed anew in each round, on the training data; what is removed stays removed.
    Source: the recipe of LeCun, Denker & Solla 1989, section 2.

    Args:
        model: a trained network; it is unchanged.
        data: training data, and test data for the accuracies.
        sparsities: the fraction of zeros after each round, not falling.
        epochs: passes over the training data in each round.
        criterion: (model, batch, loss) -> scores; a larger score stays.
        loss: a mean loss.
        seed: seed of the first round's order of samples; each further round takes the next.
        progress: show a progress bar in each round.

    Raises:
        ValueError: the sparsities fall.

    """
    if any(a > b for a, b in pairwise(sparsities)):
        raise ValueError(f"the sparsities must not fall, got {list(sparsities)}")
    return Recipe(
        *retrain(
            model,
            data,
            by_criterion(criterion, loss),
            sparsities,
            epochs=epochs,
            loss=loss,
            seed=seed,
            progress=progress,
        )
    )


class Assumptions(NamedTuple):
    """The change of the loss when masks are applied, split by what OBD keeps and what it leaves out.

    ``saliency`` + ``gradient`` + ``cross`` + ``higher`` = ``actual``.
    """

    saliency: float
    gradient: float
    cross: float
    higher: float
    actual: float


def assumptions(
    model: nn.Module, batch: Batch, kept: Masks, loss: Loss = cross_entropy
) -> Assumptions:
    """What each assumption of OBD leaves out of the change of the loss, for a step δ = θ ⊙ M − θ.

    saliency: Σ ½ h_ii δ_i², what OBD predicts. gradient: gᵀδ, zero at an extremum. cross: the rest
    of ½ δᵀHδ, zero if H were diagonal. higher: what the quadratic model misses.

    Args:
        model: a trained network.
        batch: (x, y).
        kept: masks, True keeps.
        loss: a mean loss.

    """
    delta = masks.change(model, checks.masks(kept, masks.prunable(model, biases=True)))
    h = diagonal(model, batch, loss, biases=True)
    own = sum(float((0.5 * h[name] * step**2).sum()) for name, step in delta.items())
    first = taylor.predicted_change(model, batch, delta, loss, order=1)
    second = taylor.predicted_change(model, batch, delta, loss)
    actual = taylor.actual_change(model, batch, delta, loss)
    return Assumptions(own, first, second - first - own, actual - second, actual)
