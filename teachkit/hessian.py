"""Gradients, Hessians and critical points: exactly with sympy, for networks by autodiff.

The Hessian of f collects its second derivatives, H_ij = ∂²f / ∂x_i ∂x_j. Where the gradient is
zero, the signs of H's eigenvalues tell a minimum from a maximum and a saddle.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain, pairwise, product
from typing import NamedTuple

import sympy
import torch
from sympy import Expr, Matrix, S, Symbol
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.functional import cross_entropy

from teachkit.lab.evaluation import objective
from teachkit.lab.types import Batch, Loss

Point = dict[Symbol, Expr]
DENSE_LIMIT = 5000  # parameters; their Hessian takes 200 MB in float64


class CriticalPoint(NamedTuple):
    """A point with zero gradient, what it is, the value there, and the Hessian that says so.

    ``kind`` is "minimum", "maximum", "saddle" or "undecided" (the second-derivative test is silent).
    """

    point: Point
    kind: str
    value: Expr
    hessian: Matrix


class CriticalPoints(tuple[CriticalPoint, ...]):
    """Critical points in a row, with ``complete`` (these are all real ones) and a ``note`` if not."""

    complete: bool
    note: str

    def __new__(
        cls, points: Iterable[CriticalPoint], complete: bool = True, note: str = ""
    ) -> "CriticalPoints":
        """Make the tuple and note whether it is complete."""
        made = super().__new__(cls, points)
        made.complete, made.note = complete, note
        return made


def gradient(f: Expr, variables: Sequence[Symbol] | Symbol) -> Matrix:
    """The column of first derivatives.

    >>> x, y = sympy.symbols("x y")
    >>> gradient(x**2 * y, (x, y))
    Matrix([
    [2*x*y],
    [ x**2]])
    """
    f, names = _function(f, variables)
    return Matrix([sympy.diff(f, v) for v in names])


def hessian(f: Expr, variables: Sequence[Symbol] | Symbol) -> Matrix:
    """The square matrix of second derivatives, H_ij = ∂²f / ∂x_i ∂x_j.

    >>> x, y = sympy.symbols("x y")
    >>> hessian(x**2 * y, (x, y))
    Matrix([
    [2*y, 2*x],
    [2*x,   0]])
    """
    f, names = _function(f, variables)
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


def classify(f: Expr, variables: Sequence[Symbol] | Symbol) -> CriticalPoints:
    """Find the real critical points of f and apply the second-derivative test to each.

    One variable: f″ > 0 minimum, f″ < 0 maximum, f″ = 0 undecided. Two: D > 0 and f_xx > 0 minimum,
    D > 0 and f_xx < 0 maximum, D < 0 saddle, D = 0 undecided. In general: all eigenvalues of H
    positive, all negative, both signs, and undecided when some are zero and the others agree.

    Args:
        f: a sympy expression in no other symbols than the variables.
        variables: a symbol or several.

    Returns:
        The points in order of their coordinates. ``complete`` is False where sympy cannot say that
        these are all; ``note`` then says why.

    >>> x, y = sympy.symbols("x y")
    >>> [(p.point, p.kind) for p in classify(x**3 - 3*x + y**2, (x, y))]
    [({x: -1, y: 0}, 'saddle'), ({x: 1, y: 0}, 'minimum')]

    """
    f, names = _function(f, variables)
    f = sympy.nsimplify(f, rational=True)  # a rounding error would count as a sign
    H = hessian(f, names)
    points, complete, note = critical_points(f, names)
    found = [
        CriticalPoint(point, kind(H.subs(point)), _value(f, point), H.subs(point))
        for point in points
        if _is_real(f.subs(point))  # outside the domain of f there is nothing to classify
    ]
    return CriticalPoints(found, complete, note)


def kind(H: Matrix) -> str:
    """What a symmetric matrix of numbers says of a critical point, by the signs of its eigenvalues.

    "undecided" also where the matrix has an entry without a finite value.

    >>> kind(Matrix([[2, 0], [0, -1]])), kind(Matrix([[2, 0], [0, 0]]))
    ('saddle', 'undecided')
    """
    if H.has(sympy.nan, sympy.zoo, sympy.oo, -sympy.oo, sympy.DiracDelta):
        return "undecided"
    positive, negative = _eigenvalue_signs(H)
    if positive and negative:
        return "saddle"
    if positive == H.rows:
        return "minimum"
    return "maximum" if negative == H.rows else "undecided"


def critical_points(f: Expr, variables: Sequence[Symbol] | Symbol) -> tuple[list[Point], bool, str]:
    """The real solutions of ∇f = 0, whether these are all, and if not, why.

    Polynomials in one variable are solved completely by isolating real roots, polynomials in
    several by elimination with Gröbner bases; for anything else sympy's solvers are asked.
    """
    f, names = _function(f, variables)
    for v in names:
        if set(v._assumptions_orig) - {"commutative", "real"}:
            raise ValueError(
                f"variables must be plain or real symbols, {v} has {v._assumptions_orig}"
            )
    real = {v: Symbol(v.name, real=True) for v in names}
    back = {r: v for v, r in real.items()}
    exact = sympy.nsimplify(f, rational=True).subs(real, simultaneous=True)
    slopes = map(sympy.simplify, gradient(exact, list(real.values())))
    equations = [e for e in slopes if e != 0]
    if not equations:
        return [], False, f"{f} is constant: every point is critical"
    solve = _solve_one if len(names) == 1 else _solve_many
    found, complete, note = solve(equations, list(real.values()))
    points = [{back[v]: p[v] for v in p} for p in found]
    return sorted(points, key=lambda p: [float(p[v]) for v in names]), complete, note


def sign_test(f: Expr, variable: Symbol) -> CriticalPoints:
    """Decide each critical point in one variable by the sign of f′ before and after it.

    f′ from − to + is a minimum, from + to − a maximum, without a change an "inflection". This
    decides where f″ = 0 leaves :func:`classify` undecided: f′ has no zero and no gap between the
    point and the places it is tried at.

    Raises:
        ValueError: not all critical points are known, so that "before" and "after" are not safe.

    >>> x = sympy.Symbol("x")
    >>> [p.kind for p in sign_test(x**4, x)], [p.kind for p in sign_test(x**3, x)]
    (['minimum'], ['inflection'])

    """
    f, (variable,) = _function(f, variable)
    f = sympy.nsimplify(f, rational=True)
    found = classify(f, variable)
    if not found.complete:
        raise ValueError(f"the sign test needs all critical points of {f}: {found.note}")
    x = sympy.Dummy(variable.name, real=True)
    slope = sympy.diff(f.subs(variable, x), x)
    gaps = sympy.singularities(slope, x, S.Reals)
    if not isinstance(gaps, (sympy.FiniteSet, type(S.EmptySet))):
        raise ValueError(f"f′ = {slope} has more gaps than can be listed: {gaps}")
    marks = sorted([sympy.N(p.point[variable], 50) for p in found] + [sympy.N(g, 50) for g in gaps])
    reach = min([b - a for a, b in pairwise(marks)] + [sympy.Integer(2)]) / 2

    def decided(p: CriticalPoint) -> CriticalPoint:
        at = sympy.N(p.point[variable], 50)
        before, after = (_sign(slope.subs(x, at + side * reach)) for side in (-1, 1))
        kinds = {(-1, 1): "minimum", (1, -1): "maximum"}
        return p._replace(kind=kinds.get((before, after), "inflection"))

    return CriticalPoints(map(decided, found))


def autodiff(f: Expr, variables: Sequence[Symbol], point: Mapping[Symbol, float]) -> Tensor:
    """The Hessian of a sympy expression at a point by automatic differentiation, not by algebra.

    The expression is turned into a torch function and differentiated twice; shape (n, n), float64.

    >>> x, y = sympy.symbols("x y")
    >>> autodiff(x**2 * y, (x, y), {x: 1.0, y: 3.0}).tolist()
    [[6.0, 2.0], [2.0, 0.0]]
    """
    f, names = _function(f, variables)
    if set(point) != set(names):
        raise ValueError(f"the point gives {sorted(map(str, point))}, the variables are {names}")
    numbers = [e for e in sympy.preorder_traversal(f) if e.is_number and not e.is_Rational]
    f = f.xreplace({e: e.evalf(17) for e in numbers})  # torch's functions take no plain numbers
    call = sympy.lambdify(names, f, modules=[_TORCH, torch])
    at = torch.tensor([float(point[v]) for v in names], dtype=torch.float64)
    return dense(lambda v: torch.as_tensor(call(*v), dtype=v.dtype) + 0 * v.sum(), at)


def dense(f: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The Hessian (n, n) of a scalar function of a vector, row by row: e_jᵀH for each j.

    e_jᵀH is the gradient of the j-th entry of the gradient (reverse mode twice), many j at a time.
    """
    _, pull = vjp(grad(f), at)  # type: ignore[misc]
    rows: Tensor = vmap(lambda e: pull(e)[0], chunk_size=256)(torch.eye(len(at), dtype=at.dtype))
    return rows


def of_model(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    names: Sequence[str] | None = None,
) -> Tensor:
    """The Hessian of the mean loss over a network's parameters, (n, n), in evaluation mode.

    Rows and columns run over the named parameters in order, each flattened.

    Args:
        model: any module.
        batch: (x, y).
        loss: a mean loss.
        names: which parameters, as in named_parameters(); all by default, at most 5000 numbers.

    Raises:
        ValueError: an unknown name, or too many parameters for a dense matrix.

    """
    value, params = objective(model, batch, loss)
    chosen = list(params) if names is None else list(names)
    unknown = [name for name in chosen if name not in params]
    if unknown or not chosen:
        raise ValueError(f"names must be among {list(params)}, got {chosen}")
    sizes = [params[name].numel() for name in chosen]
    n = sum(sizes)
    if n > DENSE_LIMIT:
        raise ValueError(
            f"the Hessian of {n} parameters takes {8e-9 * n * n:.1f} GB; at most {DENSE_LIMIT} "
            "parameters are allowed: name fewer, or use taylor.hessian_vector"
        )

    def of_vector(v: Tensor) -> Tensor:
        parts = torch.split(v, sizes)
        return value(
            {name: p.reshape(params[name].shape) for name, p in zip(chosen, parts, strict=True)}
        )

    return dense(of_vector, torch.cat([params[name].reshape(-1) for name in chosen]))


def curvatures(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> Tensor:
    """The eigenvalues of a network's Hessian over all parameters, ascending, shape (n,).

    Each is the second derivative of the loss along one of n perpendicular directions.
    """
    H = of_model(model, batch, loss)
    values: Tensor = torch.linalg.eigvalsh((H + H.T) / 2)
    return values


# Names that sympy's lambdify writes and torch spells otherwise or lacks.
_TORCH = {
    "Abs": torch.abs,
    "asin": torch.asin,
    "acos": torch.acos,
    "atan": torch.atan,
    "asinh": torch.asinh,
    "acosh": torch.acosh,
    "atanh": torch.atanh,
    "sqrt": lambda value: torch.sqrt(torch.as_tensor(value, dtype=torch.float64)),
    "pi": torch.pi,
    "E": torch.e,
}


def _function(f: Expr, variables: Sequence[Symbol] | Symbol) -> tuple[Expr, list[Symbol]]:
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


def _solve_one(equations: list[Expr], names: list[Symbol]) -> tuple[list[Point], bool, str]:
    """Real roots of one equation in one unknown."""
    (equation,), (x,) = equations, names
    if equation.is_polynomial(x) and sympy.Poly(equation, x).domain in (sympy.ZZ, sympy.QQ):
        roots = sympy.Poly(equation, x).real_roots(multiple=True)
        return [{x: root} for root in dict.fromkeys(roots)], True, ""
    try:
        solutions = sympy.solveset(equation, x, S.Reals)
    except NotImplementedError as error:
        return [], False, f"sympy cannot solve {equation} = 0: {error}"
    if isinstance(solutions, sympy.FiniteSet):
        return [{x: root} for root in solutions], True, ""
    if solutions is S.EmptySet:
        return [], True, ""
    return [], False, f"the solutions of {equation} = 0 are {solutions}, which cannot be listed"


def _solve_many(equations: list[Expr], names: list[Symbol]) -> tuple[list[Point], bool, str]:
    """Real solutions of a system; complete for rational polynomials with finitely many solutions."""
    system = ", ".join(f"{e} = 0" for e in equations)
    polynomial = all(e.is_polynomial(*names) for e in equations)
    try:
        if polynomial and sympy.Poly(sum(equations), *names).domain in (sympy.ZZ, sympy.QQ):
            basis = sympy.groebner(equations, *names, order="grevlex")
            if basis.exprs == [1]:
                return [], True, ""
            if basis.is_zero_dimensional:
                return _solve_finite(equations, names), True, ""
        solutions = sympy.solve(equations, names, dict=True)
    except (NotImplementedError, sympy.polys.polyerrors.BasePolynomialError) as error:
        return [], False, f"sympy cannot solve {system}: {error}"
    found = [
        s for s in solutions if len(s) == len(names) and not any(v.free_symbols for v in s.values())
    ]
    real = [s for s in found if all(v.is_real for v in s.values())]
    curves = len(found) < len(solutions)
    why = "there are whole curves of them" if curves else "these points may not be all"
    return real, False, f"{system}: {why}"


def _solve_finite(equations: list[Expr], names: list[Symbol]) -> list[Point]:
    """All real solutions of a polynomial system with finitely many.

    Eliminating all variables but one leaves a polynomial in that one, whose real roots are
    isolated exactly. Every solution is a combination of such roots, so all of these are tried.
    """
    roots = []
    for v in names:
        others = [w for w in names if w != v]
        last = sympy.groebner(equations, *others, v, order="lex").exprs[-1]
        roots.append(dict.fromkeys(sympy.Poly(last, v).real_roots(multiple=True)))
    numbers = {root: sympy.N(root, 200) for root in chain(*roots)}

    def solves(p: Point) -> bool:
        at = {v: numbers[root] for v, root in p.items()}
        return all(_sign(e.subs(at)) == 0 for e in equations)

    candidates = (dict(zip(names, values, strict=True)) for values in product(*roots))
    return [p for p in candidates if solves(p)]


def _eigenvalue_signs(H: Matrix) -> tuple[int, int]:
    """How many eigenvalues are positive and negative, counted without solving for them.

    A symmetric matrix has real eigenvalues only, and for a polynomial with real roots only,
    Descartes' rule of signs is exact: the changes of sign in the coefficients are the positive roots.
    """
    if H.rows != H.cols or H.free_symbols:
        raise ValueError(f"H must be a square matrix of numbers, got {H}")
    if any(_sign(H[i, j] - H[j, i]) for i in range(H.rows) for j in range(i)):
        raise ValueError(f"H must be symmetric, got {H}")
    # Algebraic numbers become long decimals: exact arithmetic with roots of polynomials takes minutes.
    numbers = H.applyfunc(lambda e: e if e.is_Rational else sympy.re(sympy.N(e, 250)))
    signs = [_sign(c) for c in numbers.charpoly().all_coeffs()]  # of λⁿ first
    zeros = next(i for i, s in enumerate(reversed(signs)) if s)
    nonzero = [s for s in signs if s]
    positive = sum(a != b for a, b in pairwise(nonzero))
    return positive, H.rows - zeros - positive


def _is_real(value: Expr) -> bool:
    """Whether an exact value is a finite real number."""
    number = sympy.N(value, 30)
    return bool(number.is_finite and abs(sympy.im(number)) < 1e-20)


def _value(f: Expr, point: Point) -> Expr:
    """F at a point, simplified unless that would take minutes (roots without radicals)."""
    value = f.subs(point)
    return value if value.has(sympy.CRootOf) else sympy.simplify(value)


def _sign(value: Expr) -> int:
    """−1, 0 or 1 for an exact real number; 0 means that its first 150 digits vanish."""
    for digits in (30, 200):
        number = sympy.re(sympy.N(value, digits, maxn=digits))
        if not number.is_number or number.has(sympy.nan, sympy.zoo, sympy.oo):
            raise ValueError(f"{value} has no sign")
        if abs(number) > sympy.Float(10) ** (-digits * 3 // 4):
            return 1 if number > 0 else -1
    return 0
