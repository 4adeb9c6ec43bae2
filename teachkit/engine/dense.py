"""The Hessian as a dense matrix: of a scalar function of a vector, of a network's loss.

Row j of H is the gradient of the j-th entry of the gradient, so H is n pull-backs through the
gradient's own graph. That graph is built once and vmap pulls 256 rows back at a time, which turns
thousands of small passes into a few large ones. The matrix has n² entries: up to ``DENSE_LIMIT``.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import grad, vjp, vmap
from torch.nn.functional import cross_entropy

from teachkit.core.objective import objective
from teachkit.core.types import Batch, Loss

DENSE_LIMIT = 5000  # parameters; their Hessian takes 200 MB in float64


def dense(f: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The Hessian (n, n) of a scalar function of a vector, row by row: e_jᵀH for each j.

    e_jᵀH is the gradient of the j-th entry of the gradient (reverse mode twice), many j at a time.

    >>> dense(lambda v: v[0] ** 2 * v[1], torch.tensor([1.0, 3.0])).tolist()
    [[6.0, 2.0], [2.0, 0.0]]
    """
    _, pull = vjp(grad(f), at)  # type: ignore[misc]
    basis = torch.eye(len(at), dtype=at.dtype, device=at.device)
    rows: Tensor = vmap(lambda e: pull(e)[0], chunk_size=256)(basis)
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
