"""Pruning is zeroing: masks, how many weights they keep, what they save, and the best one.

A mask has the shape of its weight and is boolean: True keeps. A larger score stays.
"""

from teachkit.core.ranking import (
    keep_n_of_m,
    keep_quota,
    keep_top,
    removed,
    sparsity,
    zeros_last,
)
from teachkit.core.weights import (
    apply,
    change,
    combine,
    keep_all,
    nonzero,
    prunable,
    split,
)
from teachkit.masks.cost import Operations, operations, total
from teachkit.masks.exchange import from_torch, to_torch
from teachkit.masks.subsets import BRUTE_FORCE_LIMIT, best_subset, log10_subsets, subset_losses

__all__ = [
    "BRUTE_FORCE_LIMIT",
    "Operations",
    "apply",
    "best_subset",
    "change",
    "combine",
    "from_torch",
    "keep_all",
    "keep_n_of_m",
    "keep_quota",
    "keep_top",
    "log10_subsets",
    "nonzero",
    "operations",
    "prunable",
    "removed",
    "sparsity",
    "split",
    "subset_losses",
    "to_torch",
    "total",
    "zeros_last",
]
