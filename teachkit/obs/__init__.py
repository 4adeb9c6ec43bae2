"""Optimal Brain Surgeon: remove a weight and let all others make up for it.

Source: Hassibi & Stork, Second order derivatives for network pruning, NIPS 1992.
"""

from teachkit.obs import classics, xor
from teachkit.obs.formulas import downdate, inverse, remove, saliencies, update
from teachkit.obs.greedy import Removal, exhaustive, surgeon
from teachkit.obs.layer_trace import Trace
from teachkit.obs.layers import prune_layer, prune_layer_pass, refit, trace_layer
from teachkit.obs.layerwise import prune_layers, refit_layers
from teachkit.obs.matrix import curvature
from teachkit.obs.network import prune

__all__ = [
    "Removal",
    "Trace",
    "classics",
    "curvature",
    "downdate",
    "exhaustive",
    "inverse",
    "prune",
    "prune_layer",
    "prune_layer_pass",
    "prune_layers",
    "refit",
    "refit_layers",
    "remove",
    "saliencies",
    "surgeon",
    "trace_layer",
    "update",
    "xor",
]
