"""Whole hidden units: delete them, merge them, repair what reads them, ask what each is worth.

A unit has weights w that go in and weights v that go out. The formulas and plain algorithms stand here;
what does the same quickly comes from :mod:`teachkit.engine.units`, ``merging`` and ``games``.
"""

from collections.abc import Mapping
from itertools import permutations
from math import factorial

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import masks, obd, obs, structured, taylor
from teachkit.core import checks, door
from teachkit.core.copies import independent_copy
from teachkit.core.objective import measured
from teachkit.core.types import Batch, Loss, Scores
from teachkit.engine.games import (
    Regression,
    Team,
    banzhaf,
    check_teams,
    every_mask,
    game,
    regress,
    shapley,
    teams,
)
from teachkit.engine.merging import DAMPING, WAYS, merge, repair, surgeon
from teachkit.engine.refit import explained
from teachkit.engine.units import activations, greedy, hidden, leave_one_out, quota, random_scores

__all__ = ["CRITERIA", "METHODS", "Regression", "activations", "banzhaf", "costs", "delete"]
__all__ += ["elimination", "every_mask", "explained", "game", "greedy", "hidden", "least_squares"]
__all__ += ["leave_one_out", "merge", "prune", "regress", "repair", "scores", "shapley", "surgeon"]
__all__ += ["teams"]


def delete(model: nn.Module, keep: Mapping[str, Tensor]) -> nn.Module:
    """A smaller network of the units kept, everything else as it was.

    >>> net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1))
    >>> delete(net, {"0": torch.tensor([True, False, True])})[2].in_features
    2
    """
    hidden(model)  # refuses what is not a chain
    return structured.shrink(model, keep)


# --- Which unit matters least? A score for each, (units,) by layer name; a larger score stays. ---


def both_sides(model: nn.Module, values: Scores) -> Scores:
    """Σ over each unit's weights, those that go in and those that go out."""
    checks.entries("values", masks.complete(values, model), masks.prunable(model))
    return {
        layer.name: values[f"{layer.name}.weight"].sum(1) + values[f"{layer.reader}.weight"].sum(0)
        for layer in hidden(model)
    }


def magnitude(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """√(Σ w² + Σ v²)."""
    sums = both_sides(model, {name: w.detach() ** 2 for name, w in masks.prunable(model).items()})
    return {name: total.sqrt() for name, total in sums.items()}


def first_order(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """|Σ g v|, the first-order change of the loss without the unit. Molchanov et al. 2017."""
    g, weights = taylor.gradient(model, batch, loss), masks.prunable(model)
    readers = {layer.name: f"{layer.reader}.weight" for layer in hidden(model)}
    return {name: (g[v] * weights[v].detach()).sum(0).abs() for name, v in readers.items()}


def saliency(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """Σ ½ h w² over the unit's weights. LeCun, Denker & Solla 1989."""
    return both_sides(model, obd.scores(model, batch, loss))


def without_unit(model: nn.Module, reader: str, j: int) -> nn.Module:
    """A copy whose layer ``reader`` does not read unit j."""
    readers = {at.reader: len(model.get_parameter(f"{at.name}.weight")) for at in hidden(model)}
    if reader not in readers:
        raise ValueError(f"reader must be one of {list(readers)}, got {reader!r}")
    checks.whole("j", j, 0, readers[reader] - 1)
    without = independent_copy(model)
    without.get_parameter(f"{reader}.weight").data[:, j] = 0
    return without


def leave_one_out_naive(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Scores:
    """L(θ without j) − L(θ), the true change: a copy of the network for every unit."""
    (x, y), changes = batch, {}
    for name, reader in hidden(model):
        units = range(model.get_parameter(f"{reader}.weight").shape[1])
        losses = [measured(loss, without_unit(model, reader, j)(x), y) for j in units]
        changes[name] = (torch.stack(losses) - measured(loss, model(x), y)).detach()
    return changes


MEASURES = {"magnitude": magnitude, "taylor": first_order, "obd": saliency}
MEASURES |= {"leave_one_out": leave_one_out}
CRITERIA = ("random", *MEASURES)


def scores(
    model: nn.Module,
    batch: Batch,
    method: str,
    loss: Loss = cross_entropy,
    *,
    generator: torch.Generator | None = None,
) -> Scores:
    """The scores by a method of ``CRITERIA``; "random" is drawn from [0, 1) with the generator.

    Without a generator the same scores are drawn each time (seed 2015).
    """
    if method not in CRITERIA:
        raise ValueError(f"method must be one of {list(CRITERIA)}, got {method!r}")
    checks.model(model, checks.batch(batch)[0])
    if method == "random":
        return random_scores(model, generator)
    return MEASURES[method](model, batch, loss)


# --- Repair: W = [V c] reads X = [A 1], what the units put out, and Z = X Wᵀ. ---


def least_squares(
    X: Tensor, W: Tensor, Z: Tensor, keep: Tensor, damping: float = DAMPING
) -> Tensor:
    """The best weights on the columns kept: min ‖X_K W_Kᵀ − Z‖² + λ‖W_K − W‖², (out, kept).

    X (n, columns), W (out, columns), Z (n, out), λ in units of the mean of H's diagonal. See :func:`repair`.

    >>> X, W = torch.tensor([[1.0, 2.0], [0.0, 0.0]]), torch.ones(1, 2)
    >>> least_squares(X, W, X @ W.T, torch.tensor([False, True])).round(decimals=4)
    tensor([[1.5000]])
    """
    λ = damping * (X**2).sum(0).mean()
    H = X.T @ X + λ * X.new_ones(X.shape[1]).diag()
    B = X.T @ Z + λ * W.T
    return (obs.inverse(H[keep][:, keep]) @ B[keep]).T


def costs(W: Tensor, inverse: Tensor) -> Tensor:
    """‖w_j‖² / [H⁻¹]_jj for each column of W, ∞ where it is gone.

    1 / [H⁻¹]_jj alone is what is left of ‖a_j‖² after regressing unit j on all other columns.

    >>> costs(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([0.5000, 9.0000])
    """
    d = inverse.diagonal()
    if float(d.min()) < -1e-10 * float(inverse.abs().max()):
        raise ValueError(f"the inverse has a negative diagonal entry, {float(d.min()):.3g}")
    return torch.where(d > 0, (W**2).sum(0) / d, torch.inf)


def elimination(W: Tensor, inverse: Tensor, count: int, *, bias: bool = False) -> list[int]:
    """The columns of W in the order in which they go, the cheapest each time, the others adapting at once.

    Optimal Brain Surgeon (Hassibi & Stork 1992) with columns in place of weights, as ZipLM (Kurtic, Frantar
    & Alistarh, NeurIPS 2023) has it for structures; ``bias``: the last column stays. See :func:`surgeon`.

    >>> elimination(torch.tensor([[1.0, 3.0]]), torch.tensor([[2.0, 0.0], [0.0, 1.0]]), 2)
    [0, 1]
    """
    order = []
    for _ in range(count):
        j = int(costs(W, inverse)[: -1 if bias else None].argmin())
        W = W - torch.outer(W[:, j], inverse[j] / inverse[j, j])
        inverse = obs.downdate(inverse, j)
        order.append(j)
    return order


# --- What is a unit worth in all teams? v(S) is minus the loss with the units of S alone. ---


def banzhaf_naive(v: Mapping[Team, float], n: int, keep: float = 0.5) -> list[float]:
    """E[v(S ∪ j) − v(S)] for each of n units, every other one in S with probability ``keep``.

    >>> banzhaf_naive({team: float(len(team) == 2) for team in teams(range(2))}, 2)
    [0.5, 0.5]
    """
    check_teams(v, n)
    chance = [
        checks.fraction("keep", keep) ** size * (1 - keep) ** (n - 1 - size) for size in range(n)
    ]
    others = [[S for S in teams(range(n)) if j not in S] for j in range(n)]
    return [sum(chance[len(S)] * (v[S | {j}] - v[S]) for S in others[j]) for j in range(n)]


def shapley_naive(v: Mapping[Team, float], n: int) -> list[float]:
    """The mean of what each of n units adds when it joins, over all orders of joining."""
    check_teams(v, n)
    worth = [0.0] * n
    for order in permutations(range(n)):
        for place, j in enumerate(order):
            S = frozenset(order[:place])
            worth[j] += (v[S | {j}] - v[S]) / factorial(n)
    return worth


METHODS = (*CRITERIA, "greedy", *(f"merge {way}" for way in WAYS), "surgeon")


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
    """A really smaller network without ``masks.removed(units, sparsity)`` units of every hidden layer.

    The methods are the criteria, to delete by; "greedy", which measures again after each unit; the three
    ways of :func:`merge`; and the :func:`surgeon`. ``repaired`` refits the next layers after a deletion
    (:func:`repair`); merging by regression and the surgeon do so by themselves.

    >>> net = nn.Sequential(nn.Linear(2, 4), nn.ReLU(), nn.Linear(4, 2))
    >>> batch = torch.rand(9, 2), torch.arange(9) % 2
    >>> prune(net, batch, 0.5)[0].out_features
    2
    """
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


door.hold(globals())
