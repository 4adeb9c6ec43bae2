"""First and second derivatives of the usual losses with respect to the network's output."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from teachkit.core.types import Loss
from teachkit.obd.stages import UncoveredError


class AtOutput(NamedTuple):
    """Derivatives of one sample's loss at its output z.

    ``gradient`` (n, ...). The Hessian is S Sᵀ with ``columns`` S (n, k, classes), or diagonal with
    ``diagonal`` (n, ...); the other is None.
    """

    gradient: Tensor
    columns: Tensor | None
    diagonal: Tensor | None

    def own(self) -> Tensor:
        """The diagonal of the Hessian, (n, ...)."""
        if self.diagonal is not None:
            return self.diagonal
        assert self.columns is not None  # noqa: S101
        return (self.columns**2).sum(1)


def _cross_entropy(z: Tensor, y: Tensor) -> AtOutput:
    """Gradient p − e_y, Hessian diag(p) − ppᵀ."""
    if z.ndim != 2 or y.ndim != 1 or y.is_floating_point() or int(y.min()) < 0:
        raise UncoveredError(
            "cross-entropy is covered for outputs (n, classes) and class numbers (n,)"
        )
    p = z.softmax(1)
    g = p.clone()
    g[torch.arange(len(y)), y] -= 1
    S = factor(p) if p.shape[1] > 1 else torch.zeros_like(p)[:, None]  # one class: p = 1
    return AtOutput(g, S, None)


def factor(p: Tensor) -> Tensor:
    """Cholesky factor of diag(p) − ppᵀ, (n, C − 1, C): one column fewer than there are classes.

    With the tail t_i = Σ_{j > i} p_j, column i is √(p_i t_i / t_{i−1}) (e_i − Σ_{j > i} p_j e_j / t_i).
    Every term is a sum or a ratio of positive numbers, so that nothing cancels.
    Source: Tanabe & Sagae, An exact Cholesky decomposition and the generalized inverse of the
    variance–covariance matrix of the multinomial distribution, JRSS B 1992.

    >>> p = torch.tensor([[0.2, 0.3, 0.5]])
    >>> S = factor(p)[0]
    >>> torch.allclose(S.T @ S, p[0].diag() - p.T @ p)
    True
    """
    tail = p.flip(1).cumsum(1).flip(1)  # t_{i−1}
    after = tail[:, 1:]
    size = (p[:, :-1] * after / tail[:, :-1]).nan_to_num_(0.0).sqrt()
    share = (p[:, None] / after[:, :, None]).nan_to_num_(0.0, 0.0, 0.0)
    later = torch.ones(p.shape[1], p.shape[1], dtype=p.dtype, device=p.device).triu(1)[:-1]
    own = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)[:-1]
    return size[:, :, None] * (own - share * later)


def _squared(z: Tensor, y: Tensor) -> AtOutput:
    m = z[0].numel()
    return AtOutput(2 * (z - y) / m, None, torch.full_like(z, 2 / m))


def _binary(z: Tensor, y: Tensor) -> AtOutput:
    m, eps = z[0].numel(), torch.finfo(z.dtype).eps
    z = z.clamp(eps, 1 - eps)  # a sigmoid rounds to 0 or 1 where it saturates
    return AtOutput(((1 - y) / (1 - z) - y / z) / m, None, (y / z**2 + (1 - y) / (1 - z) ** 2) / m)


def _binary_logits(z: Tensor, y: Tensor) -> AtOutput:
    m, p = z[0].numel(), z.sigmoid()
    return AtOutput((p - y) / m, None, p * (1 - p) / m)


FUNCTIONS: dict[object, Callable[[Tensor, Tensor], AtOutput]] = {
    functional.cross_entropy: _cross_entropy,
    functional.mse_loss: _squared,
    functional.binary_cross_entropy: _binary,
    functional.binary_cross_entropy_with_logits: _binary_logits,
}
MODULES: dict[type[nn.Module], Loss] = {
    nn.CrossEntropyLoss: functional.cross_entropy,
    nn.MSELoss: functional.mse_loss,
    nn.BCELoss: functional.binary_cross_entropy,
    nn.BCEWithLogitsLoss: functional.binary_cross_entropy_with_logits,
}
PLAIN = {"reduction": "mean", "weight": None, "pos_weight": None, "label_smoothing": 0.0}


def derivatives(loss: Loss, z: Tensor, y: Tensor) -> AtOutput:
    """The derivatives of a known loss.

    Raises:
        UncoveredError: another loss, or one with weights or label smoothing.

    """
    options = {name: getattr(loss, name, plain) for name, plain in PLAIN.items()}
    known = MODULES.get(type(loss), loss) if isinstance(loss, nn.Module) else loss
    found = FUNCTIONS.get(known) if options == PLAIN else None
    if found is None:
        names = ", ".join(kind.__name__ for kind in MODULES)
        raise UncoveredError(
            f"the loss {loss!r} is not covered; these are, as means and without weights: {names}"
        )
    if found is not _cross_entropy and z.shape != y.shape:
        raise UncoveredError(
            f"outputs {tuple(z.shape)} and targets {tuple(y.shape)} differ in shape"
        )
    return found(z, y)
