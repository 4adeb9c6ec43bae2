"""Exact algebra with sympy: expressions and their variables, signs, the signs of eigenvalues.

*Is it zero?* Rounding turns 0 into 1e-17, a wrong sign. Coefficients are made rational first
(:func:`exact`); a number is then looked at with 30 digits, which is quick and nearly always enough,
and with 200 only if all of these vanish (:func:`sign`).

*How many eigenvalues are positive?* Solving for them needs roots of a polynomial of degree n. Their
signs do not: a symmetric matrix has real eigenvalues only, and Descartes' rule then counts the
positive ones exactly by the changes of sign in the coefficients (:func:`eigenvalue_signs`).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import sympy
import torch
from sympy import Expr, Matrix, Symbol
from torch import Tensor

Point = Mapping[Symbol, object] | Sequence[object]
# Names that sympy's lambdify writes and torch spells otherwise or lacks.
_TORCH = {
    **{name: getattr(torch, name) for name in ("asin", "acos", "atan", "asinh", "acosh", "atanh")},
    "sqrt": lambda value: torch.sqrt(torch.as_tensor(value, dtype=torch.float64)),
}


def _listed(variables: Sequence[Symbol] | Symbol) -> list[Symbol]:
    return [variables] if isinstance(variables, Symbol) else list(variables)


def expression_and_names(
    f: Expr, variables: Sequence[Symbol] | Symbol
) -> tuple[Expr, list[Symbol]]:
    """f as an expression and its variables as a list; anything else is refused."""
    names = _listed(variables)
    if not names or len(set(names)) < len(names) or not all(isinstance(v, Symbol) for v in names):
        raise ValueError(
            f"variables must be different sympy symbols, at least one, got {variables!r}"
        )
    expression = sympy.sympify(f)
    if not isinstance(expression, Expr) or isinstance(expression, sympy.MatrixExpr):
        raise TypeError(f"f must be a sympy expression, got {type(f).__name__}")
    strangers = expression.free_symbols - set(names)
    if strangers:
        raise ValueError(f"f has symbols that are not variables: {sorted(map(str, strangers))}")
    return expression, names


def exact(f: Expr, variables: Sequence[Symbol] | Symbol) -> tuple[Expr, list[Symbol]]:
    """f with rational numbers for decimals, and its variables: a rounding error would count as a sign.

    >>> exact(0.1 * Symbol("x"), Symbol("x"))
    (x/10, [x])
    """
    expression, names = expression_and_names(f, variables)
    return sympy.nsimplify(expression, rational=True), names


def coordinates(variables: Sequence[Symbol] | Symbol, point: Point) -> dict[Symbol, Expr]:
    """A point as {variable: value}; it is given so, or in the order of the variables.

    >>> coordinates(sympy.symbols("x y"), (0, 2))
    {x: 0, y: 2}
    """
    names = _listed(variables)
    if not isinstance(point, Mapping):
        values = list(point) if isinstance(point, Sequence) else [point]
        if len(values) != len(names):
            raise ValueError(
                f"the point has {len(values)} coordinates for the {len(names)} variables {names}"
            )
        point = dict(zip(names, values, strict=True))
    if set(point) != set(names):
        raise ValueError(f"the point gives {sorted(map(str, point))}, the variables are {names}")
    return {v: sympy.sympify(point[v]) for v in names}


def sign(value: Expr) -> int:
    """−1, 0 or 1 for an exact real number; 0 means that its first 150 digits vanish.

    >>> sign(sympy.sqrt(2) * sympy.sqrt(3) - sympy.sqrt(6)), sign(sympy.pi - 4)
    (0, -1)
    """
    for digits in (30, 200):
        number = sympy.re(sympy.N(value, digits, maxn=digits))
        if not number.is_number or number.has(sympy.nan, sympy.zoo, sympy.oo):
            raise ValueError(f"{value} has no sign")
        if abs(number) > sympy.Float(10) ** (-digits * 3 // 4):
            return 1 if number > 0 else -1
    return 0


def eigenvalue_signs(H: Matrix) -> tuple[int, int]:
    """How many eigenvalues are positive and negative, counted without solving for them.

    For a polynomial with real roots only, Descartes' rule of signs is exact: the changes of sign in
    the coefficients are the positive roots.

    >>> eigenvalue_signs(Matrix([[0, 1], [1, 0]])), eigenvalue_signs(Matrix([[1, 1], [1, 1]]))
    ((1, 1), (1, 0))
    """
    if H.rows != H.cols or H.free_symbols:
        raise ValueError(f"H must be a square matrix of numbers, got {H}")
    if any(sign(H[i, j] - H[j, i]) for i in range(H.rows) for j in range(i)):
        raise ValueError(f"H must be symmetric, got {H}")
    # Algebraic numbers become long decimals: exact arithmetic with roots of polynomials takes minutes.
    numbers = H.applyfunc(lambda e: e if e.is_Rational else sympy.re(sympy.N(e, 250)))
    signs = [sign(c) for c in numbers.charpoly().all_coeffs()]  # of λⁿ first
    positive = sum(a != b for a, b in pairwise(s for s in signs if s))
    zeros = next(i for i, s in enumerate(reversed(signs)) if s)
    return positive, H.rows - zeros - positive


def value_at(f: Expr, point: dict[Symbol, Expr]) -> Expr:
    """f at a point, simplified unless that would take minutes (roots without radicals)."""
    value = f.subs(point)
    return value if value.has(sympy.CRootOf) else sympy.simplify(value)


def torch_function(f: Expr, names: Sequence[Symbol]) -> Callable[[Tensor], Tensor]:
    """The expression as a torch function of the vector of its variables, which autograd follows.

    >>> x, y = sympy.symbols("x y")
    >>> torch_function(x**2 * y, (x, y))(torch.tensor([3.0, 2.0]))
    tensor(18.)
    """
    numbers = [e for e in sympy.preorder_traversal(f) if e.is_number and not e.is_Rational]
    f = f.xreplace({e: e.evalf(17) for e in numbers})  # torch's functions take no plain numbers
    call: Any = sympy.lambdify(names, f, modules=[_TORCH, torch])

    def value(v: Tensor) -> Tensor:
        return torch.as_tensor(call(*v), dtype=v.dtype, device=v.device) + 0 * v.sum()

    return value
