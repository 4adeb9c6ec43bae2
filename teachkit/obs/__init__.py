"""Optimal Brain Surgeon: remove a weight and let all others make up for it.

Source: Hassibi & Stork, Second order derivatives for network pruning, NIPS 1992.
"""

from teachkit.obs.formulas import downdate, inverse, remove, saliencies, update
from teachkit.obs.greedy import Removal, surgeon
from teachkit.obs.matrix import curvature
from teachkit.obs.network import prune

__all__ = [
    "Removal",
    "curvature",
    "downdate",
    "inverse",
    "prune",
    "remove",
    "saliencies",
    "surgeon",
    "update",
]
