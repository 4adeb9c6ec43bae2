"""The Fisher matrix for the Hessian: estimates, inverses, and pruning with both.

F = E g gᵀ is the average of a gradient times itself. Under the model's own labels it equals the
expected Hessian of −log p; at the labels of the data, the *empirical* Fisher, it does not.
"""

from teachkit.fisher.distributions import drawn, output_gradients
from teachkit.fisher.estimates import (
    Agreement,
    agreement,
    diagonal,
    gradient_chunks,
    gradients,
    scores,
)
from teachkit.fisher.inverse import (
    inverse,
    inverse_blocks,
    inverse_diagonal,
    matrix,
    product,
    recursion,
    solve,
)
from teachkit.fisher.pruning import blocks, prune, saliencies, updated

__all__ = [
    "Agreement",
    "agreement",
    "blocks",
    "diagonal",
    "drawn",
    "gradient_chunks",
    "gradients",
    "inverse",
    "inverse_blocks",
    "inverse_diagonal",
    "matrix",
    "output_gradients",
    "product",
    "prune",
    "recursion",
    "saliencies",
    "scores",
    "solve",
    "updated",
]
