"""The curvature matrix that the surgeon needs: exact, Gauss-Newton or empirical Fisher."""

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, jacrev, vmap
from torch.nn.functional import cross_entropy

from teachkit import masks
from teachkit.core import checks
from teachkit.core.objective import refuse_coupled
from teachkit.core.types import Batch, Loss, Params
from teachkit.hessian import DENSE_LIMIT, of_model

Kind = Literal["exact", "gauss-newton", "fisher"]
KINDS = ("exact", "gauss-newton", "fisher")
CHUNK_BYTES = 100_000_000  # for the Jacobians held at one time


def curvature(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    kind: Kind = "exact",
    biases: bool = False,
) -> Tensor:
    """The curvature of the mean loss over the prunable weights, (n, n), in evaluation mode.

    With f the network's outputs, ℓ the loss of one of N samples and J = ∂f/∂θ,

    - "exact": H = ∂²L/∂θ², which may have negative eigenvalues away from a minimum;
    - "gauss-newton": (1/N) Σ Jᵀ (∂²ℓ/∂f²) J, without the curvature of f itself; never negative for
      cross-entropy, squared error and binary cross-entropy;
    - "fisher": (1/N) Σ g gᵀ with the gradient g of each sample's loss (the empirical Fisher).

    Rows and columns run over ``masks.prunable(model, biases=biases)`` in order, flattened.

    Args:
        model: any module; for the last two kinds torch.func.vmap must be able to run it.
        batch: (x, y).
        loss: a mean loss.
        kind: which of the three matrices.
        biases: count the biases as weights, as Hassibi & Stork do.

    Raises:
        ValueError: an unknown kind, more than 5000 weights, or a loss that is not a mean.

    >>> layer = nn.Linear(2, 1, bias=False).double()
    >>> x = torch.tensor([[1.0, 1.0], [1.0, 3.0]]).double()
    >>> curvature(layer, (x, x[:, :1]), torch.nn.functional.mse_loss, kind="gauss-newton").tolist()
    [[2.0, 4.0], [4.0, 10.0]]

    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {KINDS}, got {kind!r}")
    x, y = checks.batch(batch)
    weights = masks.prunable(checks.model(model, x), biases=biases)
    n = sum(w.numel() for w in weights.values())
    if n > DENSE_LIMIT:
        raise ValueError(
            f"the curvature of {n} weights is a matrix of {8 * n * n / 1e9:.1f} GB; at most "
            f"{DENSE_LIMIT} weights are allowed: prune layer by layer, or use a block of the Fisher"
        )
    if not n:
        return x.new_zeros(0, 0)
    if kind == "exact":
        H = of_model(model, batch, loss, names=list(weights))
        return (H + H.T) / 2
    return _sum_of_squares(model, (x, y), loss, list(weights), kind)


def _sum_of_squares(
    model: nn.Module, batch: Batch, loss: Loss, names: list[str], kind: Kind
) -> Tensor:
    """(1/N) Σ AᵀB in chunks of samples; A and B are the rows that :func:`_factors` returns."""
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    params = {name: p.detach() for name, p in frozen.named_parameters()}
    x, y = batch
    output = frozen(x)
    refuse_coupled(loss, output, y)
    moving = {name: params[name] for name in names}

    def run(given: Params, sample: Tensor) -> Tensor:
        found: Tensor = functional_call(frozen, params | given, (sample[None],))[0]
        return found

    n = sum(p.numel() for p in moving.values())
    chunk = max(1, CHUNK_BYTES // (8 * n * output[0].numel()))
    H = torch.zeros(n, n, dtype=torch.float64, device=x.device)
    for part in torch.split(torch.arange(len(x), device=x.device), chunk):
        A, B = _factors(run, moving, (x[part], y[part]), loss, kind)
        H += A.double().T @ B.double()
    H = (H + H.T) / (2 * len(x))
    return H.to(x.dtype)


def _factors(
    run: Callable[[Params, Tensor], Tensor], moving: Params, batch: Batch, loss: Loss, kind: Kind
) -> tuple[Tensor, Tensor]:
    """Two matrices with n columns whose product AᵀB is the sum over the samples."""

    def single(output: Tensor, target: Tensor) -> Tensor:
        return loss(output[None], target[None])

    if kind == "fisher":

        def one(given: Params, sample: Tensor, target: Tensor) -> Tensor:
            return single(run(given, sample), target)

        rows = _flat(vmap(grad(one), (None, 0, 0))(moving, *batch), 1)
        return rows, rows

    def whole(given: Params, sample: Tensor) -> Tensor:
        return run(given, sample).reshape(-1)

    outputs = vmap(run, (None, 0))(moving, batch[0])
    J = _flat(vmap(jacrev(whole), (None, 0))(moving, batch[0]), 2)  # (samples, outputs, n)
    size = J.shape[1]
    A = vmap(jacrev(grad(single)))(outputs, batch[1]).reshape(-1, size, size)
    return J.reshape(-1, J.shape[2]), (A @ J).reshape(-1, J.shape[2])


def _flat(parts: dict[str, Any], leading: int) -> Tensor:
    """The tensors of a dict side by side, all but the leading dimensions flattened."""
    return torch.cat([p.reshape(*p.shape[:leading], -1) for p in parts.values()], dim=-1)
