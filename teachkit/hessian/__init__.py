"""Gradients, Hessians and critical points: exactly with sympy, for networks by autodiff.

The Hessian of f collects its second derivatives, H_ij = ∂²f / ∂x_i ∂x_j. Where the gradient is
zero, the signs of H's eigenvalues tell a minimum from a maximum and a saddle.
"""

from teachkit.hessian.networks import DENSE_LIMIT, autodiff, curvatures, dense, of_model
from teachkit.hessian.points import CriticalPoint, CriticalPoints, classify, sign_test
from teachkit.hessian.solving import critical_points
from teachkit.hessian.symbolic import discriminant, eigenvalue_signs, gradient, hessian, kind

__all__ = [
    "DENSE_LIMIT",
    "CriticalPoint",
    "CriticalPoints",
    "autodiff",
    "classify",
    "critical_points",
    "curvatures",
    "dense",
    "discriminant",
    "eigenvalue_signs",
    "gradient",
    "hessian",
    "kind",
    "of_model",
    "sign_test",
]
