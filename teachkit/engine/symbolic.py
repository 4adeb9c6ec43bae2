"""Exact algebra with sympy: expressions and their variables, signs, the signs of eigenvalues.

*Is it zero?* Rounding turns 0 into 1e-17, a wrong sign. Coefficients are made rational first
(:func:`exact`); a number is then looked at with 30 digits, which is quick and nearly always enough,
and with 200 only if all of these vanish (:func:`sign`).

*How many eigenvalues are positive?* Solving for them needs roots of a polynomial of degree n. Their
signs do not: a symmetric matrix has real eigenvalues only, and Descartes' rule then counts the
positive ones exactly by the changes of sign in the coefficients (:func:`eigenvalue_signs`).

*Text is refused.* Sympy makes an expression of a string, or of what prints like one, by executing
it; it also executes the code that ``lambdify`` prints, with the names of unknown functions as they
are. So only expressions and numbers come in (:func:`expression`), and only functions of sympy's own
are printed (:func:`printable`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import pairwise
from numbers import Number
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


def expression(name: str, given: object) -> Expr:
    """An expression, or a number as one; text is refused and never parsed: sympy would execute it.

    >>> expression("f", "x**2")
    Traceback (most recent call last):
    TypeError: f must be a sympy expression or a number (text is not parsed), got str 'x**2'
    """
    made = given
    if isinstance(given, Number) and not isinstance(given, Expr):
        with suppress(sympy.SympifyError):
            made = sympy.sympify(given, strict=True)
    if not isinstance(made, Expr) or isinstance(made, sympy.MatrixExpr):
        raise TypeError(
            f"{name} must be a sympy expression or a number (text is not parsed), got {_quoted(given)}"
        )
    return made


def matrix(given: object) -> Matrix:
    """A sympy matrix as it is; lists and text are refused."""
    if not isinstance(given, sympy.MatrixBase):
        raise TypeError(f"H must be a sympy matrix (text is not parsed), got {_quoted(given)}")
    return given


def printable(f: Expr) -> Expr:
    """f if it is made of sympy's own functions: others would be printed into code by their names.

    >>> printable(sympy.Function("g")(Symbol("x")))
    Traceback (most recent call last):
    ValueError: f must be made of sympy's own functions, it has g(x)
    """
    for e in sympy.preorder_traversal(expression("f", f)):
        home = type(e).__module__ or ""
        if not home.startswith("sympy.") or home.startswith("sympy.codegen."):
            raise ValueError(f"f must be made of sympy's own functions, it has {str(e)[:60]}")
    return f


def _quoted(given: object) -> str:
    return f"{type(given).__name__} {repr(given)[:60]}"


def _listed(variables: Sequence[Symbol] | Symbol) -> list[Symbol]:
    """Different symbols as a list; text in their place is refused."""
    text = isinstance(variables, (str, bytes)) or not isinstance(variables, (Symbol, Iterable))
    names = [variables] if text or isinstance(variables, Symbol) else list(variables)
    for v in names:
        if not isinstance(v, Symbol):
            raise TypeError(
                f"variables must be sympy symbols (text is not parsed), got {_quoted(v)}"
            )
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"variables must be different sympy symbols, at least one, got {variables!r}"
        )
    return names


def expression_and_names(
    f: Expr, variables: Sequence[Symbol] | Symbol
) -> tuple[Expr, list[Symbol]]:
    """f as an expression and its variables as a list; anything else is refused."""
    names, f = _listed(variables), expression("f", f)
    strangers = f.free_symbols - set(names)
    if strangers:
        raise ValueError(f"f has symbols that are not variables: {sorted(map(str, strangers))}")
    return f, names


def exact(f: Expr, variables: Sequence[Symbol] | Symbol) -> tuple[Expr, list[Symbol]]:
    """f with rational numbers for decimals, and its variables: a rounding error would count as a sign.

    >>> exact(0.1 * Symbol("x"), Symbol("x"))
    (x/10, [x])
    """
    f, names = expression_and_names(f, variables)
    return sympy.nsimplify(f, rational=True), names


def coordinates(variables: Sequence[Symbol] | Symbol, point: Point) -> dict[Symbol, Expr]:
    """A point as {variable: value}; it is given so, or in the order of the variables.

    >>> coordinates(sympy.symbols("x y"), (0, 2))
    {x: 0, y: 2}
    """
    names = _listed(variables)
    if not isinstance(point, Mapping):
        values = list(point) if isinstance(point, (list, tuple)) else [point]
        if len(values) != len(names):
            raise ValueError(
                f"the point has {len(values)} coordinates for the {len(names)} variables {names}"
            )
        point = dict(zip(names, values, strict=True))
    if set(point) != set(names):
        raise ValueError(f"the point gives {sorted(map(str, point))}, the variables are {names}")
    return {v: expression(f"the coordinate {v}", point[v]) for v in names}


def sign(value: Expr) -> int:
    """−1, 0 or 1 for an exact real number; 0 means that its first 150 digits vanish.

    >>> sign(sympy.sqrt(2) * sympy.sqrt(3) - sympy.sqrt(6)), sign(sympy.pi - 4)
    (0, -1)
    """
    value = expression("value", value)
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
    if matrix(H).rows != H.cols or H.free_symbols:
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
    value = expression("f", f).subs(coordinates(list(point), point))
    return value if value.has(sympy.CRootOf) else sympy.simplify(value)


def torch_function(f: Expr, names: Sequence[Symbol]) -> Callable[[Tensor], Tensor]:
    """The expression as a torch function of the vector of its variables, which autograd follows.

    >>> x, y = sympy.symbols("x y")
    >>> torch_function(x**2 * y, (x, y))(torch.tensor([3.0, 2.0]))
    tensor(18.)
    """
    f, names = expression_and_names(printable(f), names)
    numbers = [e for e in sympy.preorder_traversal(f) if e.is_number and not e.is_Rational]
    f = f.xreplace({e: e.evalf(17) for e in numbers})  # torch's functions take no plain numbers
    call: Any = sympy.lambdify(names, f, modules=[_TORCH, torch])

    def value(v: Tensor) -> Tensor:
        return torch.as_tensor(call(*v), dtype=v.dtype, device=v.device) + 0 * v.sum()

    return value
