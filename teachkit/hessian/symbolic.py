"""Derivatives of sympy expressions, and exact signs."""

from collections.abc import Sequence
from itertools import pairwise

import sympy
from sympy import Expr, Matrix, Symbol


def gradient(f: Expr, variables: Sequence[Symbol] | Symbol) -> Matrix:
    """The column of first derivatives.

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


def discriminant(f: Expr, variables: Sequence[Symbol]) -> Expr:
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
    if H.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.DiracDelta):
        return "undecided"
    positive, negative = eigenvalue_signs(H)
    if positive and negative:
        return "saddle"
    if positive == H.rows:
        return "minimum"
    return "maximum" if negative == H.rows else "undecided"


def eigenvalue_signs(H: Matrix) -> tuple[int, int]:
    """How many eigenvalues are positive and negative, counted without solving for them.

    A symmetric matrix has real eigenvalues only, and for a polynomial with real roots only,
    Descartes' rule of signs is exact: the changes of sign in the coefficients are the positive roots.
    """
    if H.rows != H.cols or H.free_symbols:
        raise ValueError(f"H must be a square matrix of numbers, got {H}")
    if any(sign(H[i, j] - H[j, i]) for i in range(H.rows) for j in range(i)):
        raise ValueError(f"H must be symmetric, got {H}")
    # Algebraic numbers become long decimals: exact arithmetic with roots of polynomials takes minutes.
    numbers = H.applyfunc(lambda e: e if e.is_Rational else sympy.re(sympy.N(e, 250)))
    signs = [sign(c) for c in numbers.charpoly().all_coeffs()]  # of λⁿ first
    zeros = next(i for i, s in enumerate(reversed(signs)) if s)
    nonzero = [s for s in signs if s]
    positive = sum(a != b for a, b in pairwise(nonzero))
    return positive, H.rows - zeros - positive


def sign(value: Expr) -> int:
    """−1, 0 or 1 for an exact real number; 0 means that its first 150 digits vanish."""
    for digits in (30, 200):
        number = sympy.re(sympy.N(value, digits, maxn=digits))
        if not number.is_number or number.has(sympy.nan, sympy.zoo, sympy.oo):
            raise ValueError(f"{value} has no sign")
        if abs(number) > sympy.Float(10) ** (-digits * 3 // 4):
            return 1 if number > 0 else -1
    return 0


def expression_and_names(
    f: Expr, variables: Sequence[Symbol] | Symbol
) -> tuple[Expr, list[Symbol]]:
    """F as an expression and its variables as a list; anything else is refused."""
    names = [variables] if isinstance(variables, Symbol) else list(variables)
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
