"""The Fisher matrix for the Hessian: gradients alone, where second derivatives are called for.

F = E g gᵀ is the average of a gradient times itself. Under the model's own labels (*true*, or
*sampled*) it equals the expected Hessian of −log p; at the labels of the data (*empirical*) it does
not. G (m, n) holds one gradient per row, so that F = GᵀG / m; λ is the damping, in units of F.

Sources: Kunstner, Hennig & Balles, Limitations of the empirical Fisher approximation, NeurIPS 2019;
Singh & Alistarh, WoodFisher, NeurIPS 2020; Theis et al., Faster gaze prediction, 2018.
"""

from functools import partial
from typing import NamedTuple, Unpack

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import masks
from teachkit.core import checks, door
from teachkit.core.criteria import criterion, pruner
from teachkit.core.layers import UncoveredError
from teachkit.core.objective import sample_gradients
from teachkit.core.types import Batch, Loss, Params, Scores
from teachkit.engine.blocks import block_sums, blocks, checked, cut, factor, prune
from teachkit.engine.curvature import fisher_diagonal
from teachkit.engine.gradients import LabelOptions, gradients, mean_squares
from teachkit.lab import curves

__all__ = [
    "Agreement", "agreement", "blocks", "diagonal", "gradients", "gradients_naive", "inverse",
    "inverse_blocks", "inverse_diagonal", "matrix", "prune", "prune_naive", "recursion",
    "sampled_scores", "scores", "solve", "squares", "true_naive",
]  # fmt: skip
WOODFISHER, KUNSTNER = "Singh & Alistarh 2020", "Kunstner et al. 2019"


def gradients_naive(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Tensor:
    """G at the labels of the data, one backward pass for each sample: :func:`gradients`, to read.

    >>> net = nn.Linear(2, 1, bias=False)
    >>> _ = net.weight.data.zero_()
    >>> gradients_naive(net, (torch.eye(2), torch.ones(2, 1)), nn.functional.mse_loss)
    tensor([[-2.,  0.],
            [ 0., -2.]])
    """
    weights, rows = list(masks.prunable(model).values()), []
    sample_gradients(loss, model(batch[0]), batch[1])  # refuses what is no mean over the samples
    for x, y in zip(*batch, strict=True):
        g = torch.autograd.grad(loss(model(x[None]), y[None]), weights)
        rows.append(torch.cat([part.reshape(-1) for part in g]))
    return torch.stack(rows)


def matrix(gradients: Tensor, damping: float = 0.0) -> Tensor:
    """F = λI + GᵀG / m, shape (n, n), for at most 5000 weights.

    >>> matrix(torch.tensor([[1.0, 2.0], [3.0, 0.0]]))
    tensor([[5., 1.],
            [1., 2.]])
    """
    G = checked(gradients, damping, dense=True)
    return G.T @ G / len(G) + damping * torch.eye(G.shape[1], dtype=G.dtype, device=G.device)


def true_naive(model: nn.Module, batch: Batch) -> Tensor:
    """The true Fisher matrix under cross-entropy: every class c in turn as the label, weighed by p_c.

    (1/N) Σ_n Σ_c p_nc g_nc g_ncᵀ; the labels of the batch play no part.
    """
    x, y = batch
    p = model(x).detach().softmax(1)
    at = [gradients_naive(model, (x, torch.full_like(y, c))) for c in range(p.shape[1])]
    return torch.stack([G.T @ (p[:, [c]] * G) for c, G in enumerate(at)]).sum(0) / len(x)


def squares(a: Tensor, delta: Tensor) -> Tensor:
    """Σ_n (δ_n a_nᵀ)², entry by entry, without any of the gradients δ_n a_nᵀ of a Linear layer.

    a (N, inputs) is what went in, δ (N, outputs) the gradient at what came out.

    >>> squares(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0]]))
    tensor([[ 4., 36.]])
    """
    return (delta**2).T @ a**2


def diagonal(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy, **labels: Unpack[LabelOptions]
) -> Params:
    """The diagonal of the Fisher matrix, f_i = (1/N) Σ_n E g_ni², one tensor per prunable weight.

    Layer by layer, as :func:`squares`; convolutions add up the positions of a sample first. What
    the engine does not cover takes single gradients. The arguments are those of :func:`gradients`.

    >>> net, point = nn.Linear(1, 2, bias=False), (torch.ones(1, 1), torch.tensor([0]))
    >>> _ = net.weight.data.zero_()  # p = (½, ½), g = (−½, ½)
    >>> diagonal(net, point)["weight"].T
    tensor([[0.2500, 0.2500]])
    """
    x, _ = checks.batch(batch)
    checks.model(model, x)
    try:
        return fisher_diagonal(model, batch, loss, **labels)
    except UncoveredError:
        return mean_squares(model, batch, loss, **labels)


@criterion("empirical Fisher", passes=2, needs=("data", "labels"), source="Theis et al. 2018")
def scores(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy, **labels: Unpack[LabelOptions]
) -> Scores:
    """½ f_i w_i²: the saliency of Optimal Brain Damage with the Fisher diagonal for the Hessian's."""
    f = diagonal(model, batch, loss, **labels)
    return {name: 0.5 * f[name] * w.detach() ** 2 for name, w in masks.prunable(model).items()}


@criterion("sampled Fisher", passes=2, needs=("data",), source=KUNSTNER)
def sampled_scores(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """:func:`scores` with labels drawn from the model, the same ones in each call."""
    dice = torch.Generator().manual_seed(0)
    return scores(model, batch, loss, kind="sampled", generator=dice)


criterion("true Fisher", passes=11, needs=("data",), source=KUNSTNER)(partial(scores, kind="true"))


class Agreement(NamedTuple):
    """Σ estimate / Σ exact, and Spearman's rank correlation; 1 and 1 if an estimate is perfect."""

    scale: float
    order: float


def agreement(estimate: Params, exact: Params) -> Agreement:
    """Compare two dicts of tensors with the same keys and shapes, all entries together.

    >>> agreement({"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([2.0, 4.0])})
    Agreement(scale=0.5, order=1.0)
    """
    checks.entries("estimate", estimate, exact)
    checks.entries("exact", exact, estimate)
    a, b = (torch.cat([given[n].reshape(-1) for n in exact]).cpu() for given in (estimate, exact))
    return Agreement(float(a.sum() / b.sum()), round(curves.spearman(a, b), 12))


def recursion(gradients: Tensor, block: int, damping: float) -> Tensor:
    """F⁻¹ by blocks of b neighbouring weights, (⌈n/b⌉, b, b), gradient by gradient: to read.

    Start with I/λ. Adding g gᵀ / m to a matrix changes its inverse A by a rank-one term (Sherman &
    Morrison 1950): A ← A − (A g)(A g)ᵀ / (m + gᵀ A g). For λ > 0. :func:`inverse_blocks` finds the
    same faster. Source: Singh & Alistarh, WoodFisher, 2020, section 3.
    """
    G = checked(gradients, damping, positive=True)
    parts = cut(G, block)
    start = torch.eye(parts.shape[2], dtype=G.dtype, device=G.device) / damping
    A = start.repeat(parts.shape[1], 1, 1)
    for g in parts:
        Ag = torch.einsum("bij,bj->bi", A, g)
        scale = len(G) + (g * Ag).sum(1)
        A -= Ag[:, :, None] * Ag[:, None] / scale[:, None, None]
    return A


def inverse_blocks(gradients: Tensor, block: int, damping: float) -> Tensor:
    """F⁻¹ of every diagonal block, (⌈n/b⌉, b, b): form the blocks, then Cholesky, all at once.

    A singular block, as with fewer gradients than weights and no damping, is a ValueError.

    >>> inverse_blocks(torch.tensor([[1.0, 1.0], [-1.0, 1.0]]), 1, 1.0).flatten()
    tensor([0.5000, 0.5000])
    """
    G = checked(gradients, damping)
    F = block_sums(cut(G, block)) / len(G)
    return torch.cholesky_inverse(factor(F, damping))


def inverse(gradients: Tensor, damping: float) -> Tensor:
    """F⁻¹, shape (n, n), for at most 5000 weights: one block as large as everything."""
    G = checked(gradients, damping, dense=True)
    return inverse_blocks(G, G.shape[1], damping)[0]


def inverse_diagonal(gradients: Tensor, damping: float) -> Tensor:
    """The diagonal of the *full* inverse, (n,), through the m × m products between the samples.

    Woodbury: F⁻¹ = (I − Gᵀ(λmI + GGᵀ)⁻¹G) / λ, for then F F⁻¹ = I; G is short where m < n.
    Cholesky: LLᵀ = λmI + GGᵀ, so [F⁻¹]_qq = (1 − Σ_i (L⁻¹G)_iq²) / λ.
    Time m²n, memory mn, not n³ and n²; λ > 0. Relative error about 10⁻¹⁶ / (λ[F⁻¹]_qq): digits cancel.

    >>> inverse_diagonal(torch.tensor([[1.0, 2.0]]), 1.0)  # F = [[2, 2], [2, 5]], determinant 6
    tensor([0.8333, 0.3333])
    """
    G = checked(gradients, damping, positive=True)
    share = torch.linalg.solve_triangular(_gram(G, damping), G, upper=False)
    diagonal: Tensor = (1 - (share**2).sum(0)) / damping
    return diagonal


def solve(gradients: Tensor, vector: Tensor, damping: float) -> Tensor:
    """F⁻¹ v = (v − Gᵀ(λmI + GGᵀ)⁻¹ G v) / λ for v of shape (n,) or (n, k), without F; λ > 0."""
    G = checked(gradients, damping, positive=True)
    v = checks.finite("vector", vector)
    if v.ndim not in (1, 2) or len(v) != G.shape[1]:
        raise ValueError(f"vector must have {G.shape[1]} rows, got shape {tuple(v.shape)}")
    columns = v.reshape(len(v), -1)
    inner = torch.cholesky_solve(G @ columns, _gram(G, damping))
    return ((columns - G.T @ inner) / damping).reshape(v.shape)


def _gram(G: Tensor, damping: float) -> Tensor:
    """The Cholesky factor of λmI + GGᵀ, (m, m)."""
    return factor((G @ G.T)[None], damping * len(G))[0]


def prune_naive(w: Tensor, F: Tensor, k: int) -> Tensor:
    """What is left of the weights (n,) when k of them go: one step of :func:`prune`, to read.

    The k smallest saliencies w_q² / 2[F⁻¹]_qq are Q, the others S; those move to where ½ δᵀFδ is
    least: δ_S = F_SS⁻¹ F_SQ w_Q. F is damped; for blocks, what lies between two of them is zero.

    >>> prune_naive(torch.tensor([2.0, 1.0]), torch.tensor([[2.0, 1.0], [1.0, 2.0]]), 1)
    tensor([2.5000, 0.0000])
    """
    saliency = w**2 / (2 * torch.linalg.inv(F).diagonal())
    order = saliency.argsort()
    Q, S = order[:k], order[k:]
    left = torch.zeros_like(w)
    left[S] = w[S] + torch.linalg.inv(F[S][:, S]) @ F[S][:, Q] @ w[Q]
    return left


pruner("Fisher blocks", passes=200, needs=("data", "labels"), source=WOODFISHER)(prune)
two_steps = partial(prune, steps=2)
pruner("Fisher blocks, 2 steps", passes=400, needs=("data", "labels"), source=WOODFISHER)(two_steps)


door.hold(globals())
