"""Optimal Brain Damage: the saliency of a single weight, and what code gets wrong about it.

Near a minimum the loss rises by ½ δᵀHδ for a step δ of the weights, with H the Hessian. OBD keeps the
diagonal of H alone, so that every weight can be judged by itself. The formulas come first, then the
ways to the diagonal, from the plainest to the one for any network, then pruning.

Source: LeCun, Denker & Solla, Optimal Brain Damage, NIPS 1989.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd import grad
from torch.nn.functional import cross_entropy

from teachkit import masks, taylor
from teachkit.core import checks, door
from teachkit.core.criteria import criterion, pruner
from teachkit.core.layers import UncoveredError, parameter_name
from teachkit.core.objective import objective, refuse_sum_of
from teachkit.core.types import Batch, Criterion, Data, Loss, Masks, Params, Scores
from teachkit.engine.curvature import diagonal, gauss_newton
from teachkit.engine.dense import by_products
from teachkit.engine.estimates import hutchinson, recursion
from teachkit.engine.moments import moments as per_sample
from teachkit.lab.rounds import Run, by_criterion, retrain

__all__ = ["UncoveredError", "by_products", "diagonal", "gauss_newton"]
__all__ += ["hutchinson", "per_sample", "recursion"]


def saliency(h: Tensor, w: Tensor) -> Tensor:
    """½ h w²: what the loss rises when a weight goes, near a minimum, all others held. Equation 5.

    >>> saliency(torch.tensor([6.0, 2.0]), torch.tensor([1.0, 1.5]))
    tensor([3.0000, 2.2500])
    """
    checks.same_shape(h=h, w=w)
    return 0.5 * h * w**2


def gradients(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy
) -> Iterator[tuple[str, nn.Parameter, Tensor]]:
    """Each prunable weight with its gradient, which can be differentiated once more; a mean loss."""
    refuse_sum_of(model, batch, loss)
    value, params = objective(model, batch, loss)
    leaves = {name: nn.Parameter(params[name]) for name in masks.prunable(model)}
    if not leaves:
        return
    now = value(dict(leaves)) + 0 * sum(w.sum() for w in leaves.values())  # without gradients: 0
    first = grad(now, list(leaves.values()), create_graph=True)
    for (name, w), g in zip(leaves.items(), first, strict=True):
        yield name, w, g if g.requires_grad else 0 * w  # a layer that the output does not need


def diagonal_naive(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Params:
    """∂²L/∂w_i² for every prunable weight: one backward pass per weight, to read and to check with.

    First all gradients g_i in one pass, then ∂g_i/∂w_i, one pass for each i. For n weights that is
    n + 1 passes; :func:`diagonal` takes two to three.
    """
    h: Params = {}
    for name, w, g in gradients(model, batch, loss):
        own = torch.zeros_like(w).flatten()
        for i, g_i in enumerate(g.flatten()):
            row = grad(g_i, w, retain_graph=True, materialize_grads=True)[0]
            own[i] = row.flatten()[i]
        h[name] = own.detach().reshape(w.shape)
    return h


def row_sums(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Params:
    """Σ_j ∂²L/∂w_i∂w_j over the weights j of the same tensor: the trap, not the diagonal.

    Differentiating the gradient *tensor* in one call differentiates the sum of its entries, so that
    each weight gets the sum of its row of the Hessian. It equals the diagonal only where the
    Hessian of the tensor is diagonal.
    """
    r: Params = {}
    for name, w, g in gradients(model, batch, loss):
        ones = torch.ones_like(g)
        (sums,) = grad(g, w, ones, retain_graph=True, materialize_grads=True)
        r[name] = sums.detach()
    return r


def softmax_columns(z: Tensor) -> Tensor:
    """Columns s_c with Σ_c s_c s_cᵀ = diag(p) − p pᵀ, the Hessian of the cross-entropy at logits z.

    s_c = √p_c (e_c − p), for p = softmax(z); shapes (n, C) → (C, n, C), one column per class.

    >>> s = softmax_columns(torch.tensor([[0.0, 0.0]]))[:, 0]
    >>> s.T @ s
    tensor([[ 0.2500, -0.2500],
            [-0.2500,  0.2500]])
    """
    p = z.softmax(1)
    own = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)[:, None]
    return p.T.sqrt()[:, :, None] * (own - p)


def diagonal_relu(model: nn.Module, batch: Batch) -> Params:
    """The exact diagonal for Linear layers between ReLUs, and cross-entropy, in C backward passes.

    A weight W_ij acts on the loss through z_i = Σ_j W_ij a_j alone, and the network is linear around
    each sample. So h_ij = a_j² · (curvature at z_i), and the curvature at z_i is Σ_c (∂z_out/∂z_i · s_c)²:
    pull each column back, square, add up. :func:`diagonal` does this for more kinds of networks.
    """
    names: dict[nn.Module, str] = {
        m: name for name, m in model.named_modules() if isinstance(m, nn.Linear)
    }
    calls: dict[nn.Module, tuple[Tensor, Tensor]] = {}
    hooks = [m.register_forward_hook(lambda m, a, z: calls.update({m: (a[0], z)})) for m in names]
    output = model(batch[0])
    for hook in hooks:
        hook.remove()
    curvature = [torch.zeros_like(z) for _, z in calls.values()]
    for s in softmax_columns(output.detach()):
        pulled = grad(output, [z for _, z in calls.values()], s, retain_graph=True)
        curvature = [c + b**2 for c, b in zip(curvature, pulled, strict=True)]
    return {
        parameter_name(names[m], "weight"): c.T @ a.detach() ** 2 / len(a)
        for (m, (a, _)), c in zip(calls.items(), curvature, strict=True)
    }


NEEDS = ("data", "labels", "second order")
LECUN = "LeCun, Denker & Solla 1989"
criterion("OBD, recursion", passes=2, needs=NEEDS, source=LECUN, chains=True)(recursion)


@criterion("OBD", passes=3, needs=NEEDS, source=LECUN)
def scores(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """The saliency ½ h_ii w_i² of every prunable weight. Negative where the curvature is.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.copy_(net.weight.new_tensor([[3.0, 1.0]]))
    >>> batch = net.weight.new_tensor([[1.0, 2.0], [3.0, 0.0]]), net.weight.new_zeros(2, 1)
    >>> scores(net, batch, nn.functional.mse_loss)
    {'weight': tensor([[45.,  2.]])}
    """
    h = diagonal(model, batch, loss)
    return {name: saliency(h[name], w.detach()) for name, w in masks.prunable(model).items()}


@criterion("OBD, row sums", passes=3, needs=NEEDS, source="a trap of autograd, lesson 04")
def row_sum_scores(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """The trap as a criterion: ½ r_i w_i² with the row sums r of each tensor's Hessian for h.

    Under softmax the last layer's sums are exactly zero. They are rounded to 12 digits, so that
    what rounding has left of a zero does not rank it.
    """
    r = row_sums(model, batch, loss)
    weights = masks.prunable(model).items()
    return {name: saliency(r[name].round(decimals=12), w.detach()) for name, w in weights}


@criterion("OBD, Hutchinson", passes=6, needs=NEEDS, source="Bekas, Kokiopoulou & Saad 2007")
def hutchinson_scores(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """The saliency with the diagonal estimated from three random directions, the same each time."""
    dice = torch.Generator().manual_seed(0)
    h = hutchinson(model, batch, loss, directions=3, generator=dice).mean
    return {name: saliency(h[name], w.detach()) for name, w in masks.prunable(model).items()}


@pruner("OBD", passes=3, needs=NEEDS, source=LECUN)
def prune(
    model: nn.Module,
    batch: Batch,
    sparsity: float,
    *,
    loss: Loss = cross_entropy,
    scope: str = "global",
) -> tuple[nn.Module, Masks]:
    """A new model without the weights of least saliency, and its masks; old zeros count as removed.

    ``scope`` is "global" or "layer", see ``masks.keep_top``; the curvature is measured on the batch.
    """
    ranked = masks.zeros_last(scores(model, batch, loss), model)
    kept = masks.keep_top(ranked, sparsity, scope)
    return masks.apply(model, kept), kept


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
) -> Run:
    """Prune a trained network a little, retrain it, and repeat: LeCun's recipe, section 2.

    Saliencies are computed anew in each round, on the training data; what is removed stays removed.

    Args:
        model: a trained network; it is unchanged.
        data: training data, and test data for the accuracies.
        sparsities: the fraction of zeros after each round, not falling.
        epochs: passes over the training data in each round.
        criterion: (model, batch, loss) -> scores; a larger score stays.
        loss: a mean loss.
        seed: seed of the first round's order of samples; each further round takes the next.
        progress: show a progress bar in each round.

    """
    if any(a > b for a, b in pairwise(sparsities)):
        raise ValueError(f"the sparsities must not fall, got {list(sparsities)}")
    options: dict[str, Any] = {"epochs": epochs, "seed": seed, "progress": progress}
    return retrain(model, data, by_criterion(criterion, loss), sparsities, loss=loss, **options)


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
    """
    delta = masks.change(model, checks.masks(kept, masks.prunable(model, biases=True)))
    h = diagonal(model, batch, loss, biases=True)
    own = sum(float(saliency(h[name], step).sum()) for name, step in delta.items())
    first = taylor.predicted_change(model, batch, delta, loss, order=1)
    second = taylor.predicted_change(model, batch, delta, loss)
    actual = taylor.actual_change(model, batch, delta, loss)
    return Assumptions(own, first, second - first - own, actual - second, actual)


door.hold(globals())
