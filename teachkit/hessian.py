"""Where a gradient is zero, is it a minimum? The Hessian and the second-derivative test.

The Hessian of f collects its second derivatives, H_ij = ∂²f / ∂x_i ∂x_j. Where the gradient is
zero, the signs of H's eigenvalues tell a minimum from a maximum and a saddle: by hand for two
variables, exactly with sympy for any number, by automatic differentiation for a network.

Solving ∇f = 0 and exact signs are the engine's work (``teachkit.engine.solving``, ``symbolic``),
and so is the Hessian of a network in large pieces (``teachkit.engine.dense``).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import sympy
import torch
from sympy import Expr, Matrix, Symbol
from torch import Tensor, nn
from torch.func import grad
from torch.nn.functional import cross_entropy

from teachkit.core import door
from teachkit.core.types import Batch, Loss
from teachkit.engine.dense import DENSE_LIMIT, dense, of_model
from teachkit.engine.solving import critical_points, slope_signs
from teachkit.engine.symbolic import (
    coordinates,
    eigenvalue_signs,
    exact,
    expression_and_names,
    matrix,
    torch_function,
    value_at,
)

__all__ = [
    "DENSE_LIMIT", "CriticalPoint", "CriticalPoints", "autodiff", "classify", "curvatures", "dense",
    "dense_naive", "discriminant", "eigenvalue_signs", "gradient", "hessian", "kind", "of_model",
    "sign_test",
]  # fmt: skip


def gradient(f: Expr, variables: Sequence[Symbol] | Symbol) -> Matrix:
    """The column of first derivatives, g_i = ∂f / ∂x_i.

    >>> x, y = sympy.symbols("x y")
    >>> gradient(x**2 * y, (x, y))
    Matrix([
    [2*x*y],
    [ x**2]])
    """
    f, names = expression_and_names(f, variables)
    return Matrix([sympy.diff(f, v) for v in names])


def hessian(f: Expr, variables: Sequence[Symbol] | Symbol) -> Matrix:
    """The square matrix of second derivatives, H_ij = ∂²f / ∂x_i ∂x_j.

    >>> x, y = sympy.symbols("x y")
    >>> hessian(x**2 * y, (x, y))
    Matrix([
    [2*y, 2*x],
    [2*x,   0]])
    """
    f, names = expression_and_names(f, variables)
    return Matrix([[sympy.diff(f, v, w) for w in names] for v in names])


def discriminant(f: Expr, variables: Sequence[Symbol] | Symbol) -> Expr:
    """D = f_xx f_yy − f_xy f_yx, the determinant of the Hessian of two variables (not the Hessian).

    >>> x, y = sympy.symbols("x y")
    >>> discriminant(x**2 - y**2, (x, y))
    -4
    """
    H = hessian(f, variables)
    if H.rows != 2:
        raise ValueError(f"D is defined for two variables, got {H.rows}; use classify for more")
    return sympy.simplify(H[0, 0] * H[1, 1] - H[0, 1] * H[1, 0])


def kind(H: Matrix) -> str:
    """What a symmetric matrix of numbers says of a critical point, by the signs of its eigenvalues.

    "undecided" also where the matrix has an entry without a finite value.

    >>> kind(Matrix([[2, 0], [0, -1]])), kind(Matrix([[2, 0], [0, 0]]))
    ('saddle', 'undecided')
    """
    if matrix(H).has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.DiracDelta):
        return "undecided"
    positive, negative = eigenvalue_signs(H)
    if positive and negative:
        return "saddle"
    if positive == H.rows:
        return "minimum"
    return "maximum" if negative == H.rows else "undecided"


class CriticalPoint(NamedTuple):
    """A point with zero gradient, what it is, the value there, and the Hessian that says so.

    ``kind`` is "minimum", "maximum", "saddle" or "undecided" (the second-derivative test is silent).
    """

    point: dict[Symbol, Expr]
    kind: str
    value: Expr
    hessian: Matrix


class CriticalPoints(tuple[CriticalPoint, ...]):
    """Critical points in a row, with ``complete`` (these are all real ones) and a ``note`` if not."""

    complete = True
    note = ""


def classify(f: Expr, variables: Sequence[Symbol] | Symbol) -> CriticalPoints:
    """Find the real critical points of f and apply the second-derivative test to each.

    One variable: f″ > 0 minimum, f″ < 0 maximum, f″ = 0 undecided. Two: D > 0 and f_xx > 0 minimum,
    D > 0 and f_xx < 0 maximum, D < 0 saddle, D = 0 undecided. In general: all eigenvalues of H
    positive, all negative, both signs, and undecided when some are zero and the others agree.

    The points come in order of their coordinates. ``complete`` is False where sympy cannot say that
    these are all; ``note`` then says why.

    >>> x, y = sympy.symbols("x y")
    >>> [(p.point, p.kind) for p in classify(x**3 - 3*x + y**2, (x, y))]
    [({x: -1, y: 0}, 'saddle'), ({x: 1, y: 0}, 'minimum')]
    """
    f, names = exact(f, variables)
    H = hessian(f, names)
    points, complete, note = critical_points(f, names)
    tested = CriticalPoints(
        CriticalPoint(p, kind(H.subs(p)), value_at(f, p), H.subs(p)) for p in points
    )
    tested.complete, tested.note = complete, note
    return tested


def sign_test(f: Expr, variable: Symbol) -> CriticalPoints:
    """Decide each critical point in one variable by the sign of f′ before and after it.

    f′ from − to + is a minimum, from + to − a maximum, without a change an "inflection". This
    decides where f″ = 0 leaves :func:`classify` undecided. ValueError where not all critical points
    are known, so that "before" and "after" are not safe.

    >>> x = sympy.Symbol("x")
    >>> [p.kind for p in sign_test(x**4, x)], [p.kind for p in sign_test(x**3, x)]
    (['minimum'], ['inflection'])
    """
    f, (x, *others) = exact(f, variable)
    if others:
        raise ValueError(f"the sign test is for one variable, got {variable}")
    points = classify(f, x)
    if not points.complete:
        raise ValueError(f"the sign test needs all critical points of {f}: {points.note}")
    signs = slope_signs(f, x, [p.point[x] for p in points])
    kinds = {(-1, 1): "minimum", (1, -1): "maximum"}
    names = [kinds.get(before_after, "inflection") for before_after in signs]
    return CriticalPoints(p._replace(kind=name) for p, name in zip(points, names, strict=True))


def autodiff(
    f: Expr, variables: Sequence[Symbol] | Symbol, point: Mapping[Symbol, float]
) -> Tensor:
    """The Hessian of a sympy expression at a point by automatic differentiation, not by algebra.

    The expression is turned into a torch function and differentiated twice; shape (n, n), float64.

    >>> x, y = sympy.symbols("x y")
    >>> autodiff(x**2 * y, (x, y), {x: 1.0, y: 3.0}).tolist()
    [[6.0, 2.0], [2.0, 0.0]]
    """
    f, names = expression_and_names(f, variables)
    numbers = [float(value) for value in coordinates(names, point).values()]
    return dense(torch_function(f, names), torch.tensor(numbers, dtype=torch.float64, device="cpu"))


def dense_naive(f: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The Hessian (n, n) of a scalar function of a vector: row j is the gradient of g_j.

    >>> dense_naive(lambda v: v[0] ** 2 * v[1], torch.tensor([1.0, 3.0])).tolist()
    [[6.0, 2.0], [2.0, 0.0]]
    """

    def slope(v: Tensor, j: int) -> Tensor:
        g: Tensor = grad(f)(v)
        return g[j]

    return torch.stack([grad(slope)(at, j) for j in range(len(at))])


def curvatures(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Tensor:
    """The eigenvalues of a network's Hessian over all parameters, ascending, shape (n,).

    Each is the second derivative of the loss along one of n perpendicular directions.
    """
    H = of_model(model, batch, loss)
    values: Tensor = torch.linalg.eigvalsh((H + H.T) / 2)
    return values


door.hold(globals())
