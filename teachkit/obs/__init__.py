"""Optimal Brain Surgeon: remove a weight and let all others make up for it.

Source: Hassibi & Stork, Second order derivatives for network pruning, NIPS 1992.
"""

from teachkit.obs import classics, xor
from teachkit.obs.formulas import downdate, inverse, remove, saliencies, update
from teachkit.obs.greedy import Removal, exhaustive, surgeon
from teachkit.obs.matrix import curvature
from teachkit.obs.network import prune

__all__ = [
    "Removal",
    "classics",
    "curvature",
    "downdate",
    "exhaustive",
    "inverse",
    "prune",
    "remove",
    "saliencies",
    "surgeon",
    "update",
    "xor",
]
