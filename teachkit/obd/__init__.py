"""Optimal Brain Damage: the diagonal of the Hessian, several ways, and pruning by ½ h w²."""

from teachkit.obd.estimates import (
    Estimate,
    by_products,
    diagonal_naive,
    hutchinson,
    recursion,
    row_sums,
)
from teachkit.obd.exact import Diagonal, PerSample, Spread, diagonal, gauss_newton, per_sample
from teachkit.obd.pruning import (
    Assumptions,
    Recipe,
    assumptions,
    prune,
    recipe,
    row_sum_scores,
    scores,
)
from teachkit.obd.stages import UncoveredError

__all__ = [
    "Assumptions",
    "Diagonal",
    "Estimate",
    "PerSample",
    "Recipe",
    "Spread",
    "UncoveredError",
    "assumptions",
    "by_products",
    "diagonal",
    "diagonal_naive",
    "gauss_newton",
    "hutchinson",
    "per_sample",
    "prune",
    "recipe",
    "recursion",
    "row_sum_scores",
    "row_sums",
    "scores",
]
