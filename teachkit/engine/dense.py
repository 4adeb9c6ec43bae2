"""Dense matrices, and the diagonal, for any module: one derivative after the other, many at a time.

``torch.func`` differentiates whatever runs, of whatever layers: the exact slow way that the faster
engines fall back on and are tested against. Two ideas:

- A **row of the Hessian** is eᵀH, the gradient of one entry of the gradient. ``vmap`` takes many unit
  vectors e through the graph of the gradient at once. :func:`dense` keeps the rows,
  :func:`by_products` entry i of row i alone, so it needs no n × n numbers.
- A **matrix that is a mean over samples**, Fisher or Gauss–Newton, is a sum of AᵀB with a row or
  several for each sample: added up chunk by chunk in float64, no Jacobian is ever stored whole.

Dense matrices stop at 5000 weights: 200 MB in float64, and the inverse takes about 10 seconds.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.func import grad, jacrev, vjp
from torch.nn.functional import cross_entropy, one_hot

from teachkit.core import bars, checks
from teachkit.core.copies import caller
from teachkit.core.objective import (
    mapped,
    measured,
    objective,
    refuse_sum_of,
    sample_gradients,
)
from teachkit.core.types import Batch, Loss, Params
from teachkit.core.weights import prunable, split
from teachkit.engine.gradients import CHUNK, apart, frozen_copy, gradient_chunks, side_by_side

DENSE_LIMIT = 5000  # weights; their matrix takes 200 MB in float64
Kind = Literal["exact", "gauss-newton", "fisher"]
Product = Callable[[Tensor], Tensor]


def refuse_large(n: int, what: str, instead: str, limit: int = DENSE_LIMIT) -> None:
    """Raise where a matrix of n × n numbers is too large to form."""
    if n > limit:
        raise ValueError(
            f"{what} {8e-9 * n * n:.1f} GB; at most {limit} weights are allowed: {instead}"
        )


def _product_at(f: Callable[[Tensor], Tensor], at: Tensor) -> Product:
    """v → Hv, for H is symmetric: vᵀH is the reverse pass through the gradient."""
    pull = vjp(grad(f), at)[1]
    return lambda v: pull(v)[0]


def dense(f: Callable[[Tensor], Tensor], at: Tensor) -> Tensor:
    """The Hessian (n, n) of a scalar function of a vector, row by row: e_jᵀH for each j.

    >>> dense(lambda v: v[0] ** 2 * v[1], torch.tensor([1.0, 3.0]))
    tensor([[6., 2.],
            [2., 0.]])
    """
    units = torch.eye(len(at), dtype=at.dtype, device=at.device)
    product = mapped(_product_at(f, at))
    parts = bars.bar(torch.split(units, 256), "rows of the Hessian, in parts of 256")
    return torch.cat([product(part) for part in parts])


def of_model(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    names: Sequence[str] | None = None,
) -> Tensor:
    """The Hessian of the mean loss over a network's parameters, (n, n), in evaluation mode.

    Rows and columns run over the parameters named, in order, each flattened; by default over all.

    Raises:
        ValueError: an unknown name, or more than 5000 numbers.

    """
    value, params = objective(model, batch, loss)
    chosen = list(params) if names is None else list(names)
    if not chosen or any(name not in params for name in chosen):
        raise ValueError(f"names must be among {list(params)}, got {chosen}")
    if len(set(chosen)) < len(chosen):
        raise ValueError(f"names must differ, got {chosen}")
    moving = {name: params[name] for name in chosen}
    n = sum(p.numel() for p in moving.values())
    instead = "name fewer, or use taylor.hessian_vector"
    refuse_large(n, f"the Hessian of {n} parameters takes", instead)
    at = torch.cat([p.reshape(-1) for p in moving.values()])
    return dense(lambda v: value(split(v, moving)), at)


def curvature(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    kind: Kind = "exact",
    biases: bool = False,
    limit: int = DENSE_LIMIT,
) -> Tensor:
    """The curvature of the mean loss over the prunable weights, (n, n), in evaluation mode.

    With f the network's outputs, ℓ the loss of one of N samples and J = ∂f/∂θ,

    - "exact": H = ∂²L/∂θ², which may have negative eigenvalues away from a minimum;
    - "gauss-newton": (1/N) Σ Jᵀ (∂²ℓ/∂f²) J, without the curvature of f itself; never negative for
      cross-entropy, squared error and binary cross-entropy;
    - "fisher": (1/N) Σ g gᵀ with the gradient g of each sample's loss (the empirical Fisher).

    Rows and columns run over ``masks.prunable(model, biases=biases)`` in order, flattened. For the
    last two kinds torch.func.vmap must be able to run the model.

    Raises:
        ValueError: an unknown kind, more than 5000 weights, or a loss that is not a mean.

    >>> layer = nn.Linear(2, 1, bias=False).double()
    >>> x = torch.tensor([[1.0, 1.0], [1.0, 3.0]]).double()
    >>> curvature(layer, (x, x[:, :1]), torch.nn.functional.mse_loss, kind="gauss-newton").tolist()
    [[2.0, 4.0], [4.0, 10.0]]

    """
    if kind not in get_args(Kind):
        raise ValueError(f"kind must be one of {get_args(Kind)}, got {kind!r}")
    x, y = checks.batch(batch)
    weights = prunable(checks.model(model, x), biases=biases)
    n = sum(w.numel() for w in weights.values())
    instead = "prune layer by layer, or use a block of the Fisher"
    refuse_large(n, f"the curvature of {n} weights is a matrix of", instead, limit)
    if not n:
        return x.new_zeros(0, 0)
    if kind == "exact":
        H = of_model(model, batch, loss, names=list(weights))
    else:
        H = torch.zeros(n, n, dtype=torch.float64, device=x.device)
        for A, B in _factors(model, (x, y), loss, kind, biases):
            H.addmm_(A.double().T, B.double(), alpha=1 / len(x))
    return ((H + H.T) / 2).to(next(iter(weights.values())).dtype)


def _factors(
    model: nn.Module, batch: Batch, loss: Loss, kind: Kind, biases: bool
) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs of matrices with n columns; their products AᵀB add up to the sum over the samples."""
    if kind == "fisher":
        yield from ((G, G) for G in gradient_chunks(model, batch, loss, biases=biases))
        return
    x, y = batch
    frozen, weights = frozen_copy(model, biases)
    run = caller(frozen, x, model)
    output = apart(run, x)
    sample_gradients(loss, output, y)

    def jacobian(sample: Tensor) -> Tensor:  # (outputs, n)
        return side_by_side(jacrev(lambda w: run(w, sample[None]).reshape(-1))(weights), 1)

    def single(z: Tensor, label: Tensor) -> Tensor:
        return measured(loss, z.reshape(output[:1].shape), label[None])

    n, outputs = sum(w.numel() for w in weights.values()), output[0].numel()
    size = max(1, CHUNK // (n * outputs))
    for part, z, label in zip(
        *(torch.split(t, size) for t in (x, output.flatten(1), y)), strict=True
    ):
        J = mapped(jacobian)(part)  # (samples, outputs, n)
        bend = mapped(jacrev(grad(single)))(z, label)
        yield J.flatten(0, 1), (bend @ J).flatten(0, 1)


def products(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy, *, biases: bool = False
) -> Iterator[tuple[str, Tensor, Product]]:
    """Each prunable weight: its name, its value, and v → Hv for its own block of the Hessian."""
    refuse_sum_of(model, batch, loss)
    value, params = objective(model, batch, loss)
    for name in prunable(model, biases=biases):
        w = params[name]
        yield name, w, _product_at(lambda p, name=name: value({name: p}), w)  # type: ignore[misc]


def by_products(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    biases: bool = False,
    chunk: int = 32,
    progress: bool = True,
) -> Params:
    """The exact diagonal of the Hessian: h_ii is entry i of H e_i, one product per weight.

    ``chunk`` products are taken at once: more is faster and takes more memory. A progress bar is
    shown where it takes long.
    """
    checks.whole("chunk", chunk, 1)
    diagonal: Params = {}
    total = sum(w.numel() for w in prunable(model, biases=biases).values())
    with bars.bar(desc="products", total=total, show=progress) as bar:
        for name, theta, product in products(model, batch, loss, biases=biases):
            h = torch.zeros_like(theta).reshape(-1)
            for at in torch.split(torch.arange(len(h), device=h.device), chunk):
                units = one_hot(at, len(h)).to(h.dtype).reshape(-1, *theta.shape)
                h[at] = mapped(product)(units).flatten(1).gather(1, at[:, None])[:, 0]
                bar.update(len(at))
            diagonal[name] = h.reshape(theta.shape)
    return diagonal
