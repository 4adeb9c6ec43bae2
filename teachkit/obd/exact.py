"""The exact diagonal of the Hessian of a mean loss, and how it spreads over the samples."""

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit import masks
from teachkit.core import checks
from teachkit.core.types import Batch, Loss, Params
from teachkit.obd import backward, estimates
from teachkit.obd.backward import Layer
from teachkit.obd.stages import Conv, UncoveredError

METHODS = ("auto", "backward", "products")


class Diagonal(dict[str, Tensor]):
    """One tensor per weight, and the way it was computed: ``method`` and, in words, ``why``."""

    def __init__(self, values: Params, method: str, why: str) -> None:
        super().__init__(values)
        self.method, self.why = method, why


def diagonal(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    biases: bool = False,
    method: str = "auto",
    progress: bool = True,
) -> Diagonal:
    """h_ii = ∂²L/∂w_i² for every prunable weight, exactly, in evaluation mode.

    Two ways, and ``.method`` of the result says which one ran. "backward" carries the curvature
    back through a chain of layers, at the cost of a few passes: Sequential of Linear, Conv2d,
    pooling, flatten, batch norm, dropout and the usual activations, with cross-entropy, MSE or BCE
    as a mean. "products" takes one Hessian-vector product per weight and works for any module.
    "auto" takes the first where it can; ``.why`` says what stood in its way.

    For piecewise linear activations (ReLU) the result is the diagonal of the Gauss–Newton matrix as
    well; kinks are not seen. Source of the idea: LeCun, Denker & Solla 1989, who keep the diagonal
    only on the way back (:func:`recursion`); Dangel, Harmeling & Hennig 2020 for exact ones.

    Args:
        model: any module; it is unchanged.
        batch: (x, y); the result is of the mean over these samples.
        loss: a mean loss.
        biases: also the biases of the Linear and Conv layers.
        method: "auto", "backward" or "products".
        progress: show a progress bar when the slow way takes longer than a few seconds.

    Raises:
        ValueError: with "backward", a network or loss that it does not cover (``UncoveredError``).

    >>> net = nn.Linear(2, 1, bias=False)
    >>> batch = torch.tensor([[1.0, 2.0], [3.0, 0.0]]), torch.zeros(2, 1)
    >>> h = diagonal(net, batch, nn.functional.mse_loss)  # 2 · mean of x²
    >>> h["weight"], h.method
    (tensor([[10.,  4.]]), 'backward')

    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {METHODS}, got {method!r}")
    why = "asked for"
    if method != "products":
        try:
            return Diagonal(_backward(model, batch, loss, biases), "backward", "a covered chain")
        except UncoveredError as reason:
            if method == "backward":
                raise
            why = str(reason)
    found = estimates.by_products(model, batch, loss, biases=biases, progress=progress)
    return Diagonal(found, "products", why)


def gauss_newton(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy, *, biases: bool = False
) -> Params:
    """The diagonal of the Gauss–Newton matrix (1/N) Σₙ JₙᵀHₙJₙ, with Jₙ the Jacobian of the outputs.

    Hₙ is the Hessian of sample n's loss at the outputs. It leaves out the curvature of the network
    itself. Never negative for a convex loss, and equal to :func:`diagonal` where the activations
    are piecewise linear.

    Raises:
        ValueError: a network or loss that is not covered (``UncoveredError``), see :func:`diagonal`.

    """
    return _backward(model, batch, loss, biases, curved=False)


class Spread(NamedTuple):
    """Mean and standard deviation over the samples, per weight; the deviation divides by n."""

    mean: Params
    sd: Params


class PerSample(NamedTuple):
    """How single samples' losses see each weight: ∂ℓ/∂w, ∂²ℓ/∂w², and −g w + ½ h w²."""

    gradient: Spread
    curvature: Spread
    change: Spread


def per_sample(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> PerSample:
    """Mean and spread over samples of gradient, curvature and predicted change, per weight.

    The change c = −g w + ½ h w² is what the second-order Taylor polynomial predicts for the loss of
    one sample when the weight is removed. No sample's values are stored for Linear layers: with the
    gradient δ and the curvature D at the outputs and the inputs a, E[g²], E[h²] and E[gh] are the
    products (δ²)ᵀa², (D²)ᵀa⁴ and (δD)ᵀa³.

    Raises:
        ValueError: a network or loss that is not covered (``UncoveredError``), see :func:`diagonal`.

    """
    sums: dict[str, list[Tensor]] = {}
    for part in backward.chunks(model, batch, loss):
        for name, layer in part.items():
            new = _moments(layer)
            sums[name] = (
                [a + b for a, b in zip(sums[name], new, strict=True)] if name in sums else new
            )
    found: dict[str, list[Tensor]] = {}
    for name, w in masks.prunable(model).items():
        means = [(total / len(batch[0])).reshape(w.shape) for total in sums[name]]
        found[name] = _spread(w.detach(), *means)
    columns = [{name: parts[i] for name, parts in found.items()} for i in range(6)]
    return PerSample(Spread(*columns[:2]), Spread(*columns[2:4]), Spread(*columns[4:]))


def _backward(
    model: nn.Module, batch: Batch, loss: Loss, biases: bool, *, curved: bool = True
) -> Params:
    wanted = masks.prunable(model, biases=biases)
    sums = {name: torch.zeros_like(w).detach() for name, w in wanted.items()}
    for part in backward.chunks(model, batch, loss, curved=curved):
        for name, layer in part.items():
            sums[name] += _curvature(layer).reshape(sums[name].shape)
            bias = name.removesuffix("weight") + "bias"
            if bias in sums:
                sums[bias] += layer.bias.sum(0)
    n = len(batch[0])
    return {name: checks.finite(f"the diagonal of {name!r}", h.div_(n)) for name, h in sums.items()}


def _curvature(layer: Layer) -> Tensor:
    """Σ over the samples of ∂²ℓ/∂w²."""
    if isinstance(layer.stage, Conv):
        return layer.curvature.sum(0)
    return layer.curvature.T @ layer.stage.a**2


def _moments(layer: Layer) -> list[Tensor]:
    """Sums over the samples of g, h, g², h² and gh."""
    if isinstance(layer.stage, Conv):
        g = layer.stage.per_weight(layer.delta[:, None], layer.stage.patches())[:, 0]
        h = layer.curvature
        return [t.sum(0) for t in (g, h, g * g, h * h, g * h)]
    delta, D, a = layer.delta, layer.curvature, layer.stage.a
    left: list[tuple[Tensor, int]] = [(delta, 1), (D, 2), (delta**2, 2), (D**2, 4), (delta * D, 3)]
    return [t.T @ a**power for t, power in left]


def _spread(w: Tensor, g: Tensor, h: Tensor, gg: Tensor, hh: Tensor, gh: Tensor) -> list[Tensor]:
    """Means and standard deviations of g, h and c = −g w + ½ h w² from the five moments."""
    c = -g * w + 0.5 * h * w**2
    cc = gg * w**2 - gh * w**3 + 0.25 * hh * w**4
    return [v for m, square in ((g, gg), (h, hh), (c, cc)) for v in (m, _sd(m, square))]


def _sd(mean: Tensor, square: Tensor) -> Tensor:
    return (square - mean**2).clamp(min=0).sqrt()
