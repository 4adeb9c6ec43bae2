"""Taylor's polynomial of a function, and the same idea for the loss of a network.

L(θ + δ) ≈ L(θ) + gᵀδ + ½ δᵀHδ, with the gradient g and the Hessian H of the loss at θ.
"""

from teachkit.taylor.changes import (
    Path,
    actual_change,
    along,
    gradient,
    gradient_and_product,
    hessian_vector,
    predicted_change,
)
from teachkit.taylor.removal import Alone, Together, alone, together, zeroing
from teachkit.taylor.series import lagrange, polynomial, remainder

__all__ = [
    "Alone",
    "Path",
    "Together",
    "actual_change",
    "alone",
    "along",
    "gradient",
    "gradient_and_product",
    "hessian_vector",
    "lagrange",
    "polynomial",
    "predicted_change",
    "remainder",
    "together",
    "zeroing",
]
