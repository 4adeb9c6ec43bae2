"""The Hessian by automatic differentiation: of an expression, a function, a network's loss."""

from collections.abc import Callable, Mapping, Sequence

import sympy
import torch
from sympy import Expr, Symbol
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.functional import cross_entropy

from teachkit.core.objective import objective
from teachkit.core.types import Batch, Loss
from teachkit.hessian.symbolic import expression_and_names

DENSE_LIMIT = 5000  # parameters; their Hessian takes 200 MB in float64
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


def autodiff(f: Expr, variables: Sequence[Symbol], point: Mapping[Symbol, float]) -> Tensor:
    """The Hessian of a sympy expression at a point by automatic differentiation, not by algebra.

    The expression is turned into a torch function and differentiated twice; shape (n, n), float64.

    >>> x, y = sympy.symbols("x y")
    >>> autodiff(x**2 * y, (x, y), {x: 1.0, y: 3.0}).tolist()
    [[6.0, 2.0], [2.0, 0.0]]
    """
    f, names = expression_and_names(f, variables)
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
