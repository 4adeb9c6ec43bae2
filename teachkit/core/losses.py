"""What is known of the usual losses: their derivatives at the network's output, and their labels.

A mean loss of single samples is −log p(y | x) for a distribution p over labels y, up to a constant.
The Gauss–Newton matrix needs the Hessian of one sample's loss at its output; the Fisher matrix
needs its gradients, averaged over labels, and all its kinds differ in the labels they take.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from teachkit.core import door
from teachkit.core.layers import UncoveredError, does_more
from teachkit.core.objective import sample_gradients
from teachkit.core.types import Loss

Labels = Literal["empirical", "true", "sampled"]
DRAWABLE = ("cross_entropy", "mse_loss", "binary_cross_entropy_with_logits (one output)")


class AtOutput(NamedTuple):
    """Derivatives of each sample's loss at its output z, (n, ...).

    ``gradient`` has the shape of z. The Hessian of sample n is Σ_k c_k s_k s_kᵀ with the columns s_k,
    ``columns`` (k, n, ...), and the numbers c_k, ``size`` (n, k); all are 1 where it is None.
    """

    gradient: Tensor
    columns: Tensor
    size: Tensor | None = None

    def diagonal(self) -> Tensor:
        """The diagonal of the Hessian, (n, ...)."""
        squares = self.columns**2
        if self.size is not None:
            squares = squares * self.size.T.reshape(*squares.shape[:2], *[1] * (squares.ndim - 2))
        return squares.sum(0)


def _cross_entropy(z: Tensor, y: Tensor) -> AtOutput:
    """Gradient p − e_y, Hessian diag(p) − ppᵀ."""
    if z.ndim != 2 or y.ndim != 1 or y.is_floating_point() or int(y.min()) < 0:
        raise UncoveredError(
            "cross-entropy is covered for outputs (n, classes) and class numbers (n,)"
        )
    p = z.softmax(1)
    g = p.clone()
    g[torch.arange(len(y), device=z.device), y.long()] -= 1  # a byte would be a mask
    S = factor(p) if p.shape[1] > 1 else torch.zeros_like(p)[:, None]  # one class: p = 1
    return AtOutput(g, S.transpose(0, 1))


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


def _apart(gradient: Tensor, curvature: Tensor) -> AtOutput:
    """A loss that sees each output alone: its Hessian is diagonal, one unit column an output."""
    size = curvature.reshape(len(curvature), -1)
    units = torch.eye(size.shape[1], dtype=size.dtype, device=size.device)[:, None]
    columns = units.expand(-1, len(size), -1).reshape(-1, *gradient.shape)
    return AtOutput(gradient, columns, size)


def _squared(z: Tensor, y: Tensor) -> AtOutput:
    m = z[0].numel()
    return _apart(2 * (z - y) / m, torch.full_like(z, 2 / m))


def _binary(z: Tensor, y: Tensor) -> AtOutput:
    m, eps = z[0].numel(), torch.finfo(z.dtype).eps
    z = z.clamp(eps, 1 - eps)  # a sigmoid rounds to 0 or 1 where it saturates
    slope = ((1 - y) / (1 - z) - y / z) / m
    return _apart(slope, (y / z**2 + (1 - y) / (1 - z) ** 2) / m)


def _binary_logits(z: Tensor, y: Tensor) -> AtOutput:
    m, p = z[0].numel(), z.sigmoid()
    return _apart((p - y) / m, p * (1 - p) / m)


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
PLAIN = {
    "reduction": "mean",
    "weight": None,
    "pos_weight": None,
    "label_smoothing": 0.0,
    "ignore_index": -100,
}


def plain(loss: Loss) -> Loss:
    """The function behind a loss module without options, e.g. ``nn.CrossEntropyLoss()``; else itself."""
    options = {name: getattr(loss, name, default) for name, default in PLAIN.items()}
    known = isinstance(loss, nn.Module) and options == PLAIN and not does_more(loss)
    return MODULES.get(type(loss), loss) if known else loss  # type: ignore[arg-type]


def derivatives(loss: Loss, z: Tensor, y: Tensor) -> AtOutput:
    """The derivatives of a known loss.

    Raises:
        UncoveredError: another loss, or one with weights or label smoothing.

    """
    found = FUNCTIONS.get(plain(loss))
    if found is None:
        names = ", ".join(kind.__name__ for kind in MODULES)
        raise UncoveredError(
            f"the loss {loss!r} is not covered; these are, as means and without weights: {names}"
        )
    if (z.shape if found is not _cross_entropy else z.shape[:1]) != y.shape:
        raise UncoveredError(
            f"outputs {tuple(z.shape)} and targets {tuple(y.shape)} differ in shape"
        )
    return found(z, y)


def output_gradients(
    output: Tensor, y: Tensor, loss: Loss, kind: Labels, generator: torch.Generator | None = None
) -> Tensor:
    """K gradients of the loss with respect to each sample's output, shape (K, N, ...).

    "empirical": at the labels y, K = 1. "sampled": at one label per sample drawn from the model,
    K = 1. "true": such that (1/K) Σ_k s_k s_kᵀ is the expectation over the model's labels; K is
    the number of outputs C. For cross-entropy s_c = √(C p_c) (p − e_c), one per class; for the mean
    squared error, −log of a Gaussian of variance C/2, s_c = √2 e_c.

    Args:
        output: (N, C), the model's outputs.
        y: (N, ...), the labels.
        loss: a mean loss.
        kind: which labels.
        generator: draws the labels where kind is "sampled".

    Raises:
        ValueError: an unknown kind, a loss whose distribution is not known, or one that is not the
            mean over the samples.

    """
    if kind not in get_args(Labels):
        raise ValueError(f"kind must be one of {get_args(Labels)}, got {kind!r}")
    loss = plain(loss)
    if kind == "true":
        return _expected(output, loss)
    labels = y if kind == "empirical" else drawn(output, loss, generator)
    return sample_gradients(loss, output, labels)[None]


def drawn(output: Tensor, loss: Loss, generator: torch.Generator | None) -> Tensor:
    """One label per sample from the model's own distribution.

    >>> dice = torch.Generator().manual_seed(0)
    >>> drawn(torch.tensor([[9.0, -9.0], [-9.0, 9.0]]), functional.cross_entropy, dice)
    tensor([0, 1])
    """
    if not isinstance(generator, torch.Generator):
        raise TypeError(f"sampled labels need a torch.Generator, got {type(generator).__name__}")
    loss = plain(loss)
    _refuse_unknown(output, loss)
    if loss is functional.cross_entropy:
        p = output.softmax(1).to(generator.device)
        return torch.multinomial(p, 1, generator=generator)[:, 0].to(output.device)
    if loss is functional.mse_loss:
        noise = torch.randn(
            output.shape, generator=generator, dtype=output.dtype, device=generator.device
        ).to(output.device)
        spread: float = (output[0].numel() / 2) ** 0.5
        return output + spread * noise
    p = output.sigmoid().to(generator.device)
    return torch.bernoulli(p, generator=generator).to(output.device)


def _expected(output: Tensor, loss: Loss) -> Tensor:
    _refuse_unknown(output, loss)
    if loss is functional.cross_entropy:
        p = output.softmax(1)
        classes = torch.eye(p.shape[1], dtype=p.dtype, device=p.device)
        return (p.shape[1] * p.T).sqrt()[..., None] * (p - classes[:, None])
    if loss is functional.mse_loss:
        ones = torch.eye(output[0].numel(), dtype=output.dtype, device=output.device)
        ones = ones.reshape(-1, 1, *output.shape[1:])
        return (2**0.5 * ones).expand(-1, *output.shape)
    spread: Tensor = (output.sigmoid() * (-output).sigmoid()).sqrt()
    return spread[None]


def _refuse_unknown(output: Tensor, loss: Loss) -> None:
    """The model's labels are known for three losses."""
    known = (
        (loss is functional.cross_entropy and output.ndim == 2)
        or loss is functional.mse_loss
        or (loss is functional.binary_cross_entropy_with_logits and output[0].numel() == 1)
    )
    if not known:
        name = getattr(loss, "__name__", repr(loss))
        raise ValueError(
            f"the model's distribution of labels is known for {', '.join(DRAWABLE)}, got {name} with "
            f'outputs of shape {tuple(output.shape)}; kind="empirical" takes any mean loss'
        )


door.hold(globals())
