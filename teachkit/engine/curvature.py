"""The exact diagonal of the Hessian, of Gauss–Newton and of Fisher, in the time of two to three passes.

For one sample let z be the outputs of a layer, z = W a, and H_z the Hessian of that sample's loss
with respect to z. Then W_ij has the curvature (H_z)_ii a_j², and over a batch the whole diagonal is
one product of matrices, Dᵀ a² with the diagonals D of H_z, a row a sample. Two things make H_z:

- *The loss.* Its Hessian at the output is Σ_k s_k s_kᵀ with a few columns s_k (C − 1 for C classes).
  Pulled back to z by autograd, b_k = Jᵀ s_k, they give Σ_k b_k². This is the Gauss–Newton matrix;
  with gradients of the loss for columns it is the Fisher matrix.
- *Bends.* An activation φ(u) adds the diagonal matrix r = φ″(u) ⊙ ∂ℓ/∂φ at u. At the layer that
  makes u it is added as it is. One layer further down the diagonal of Wᵀ diag(r) W is r W². Only
  farther down it takes columns of its own, the rows of W, one a unit. ReLU has no bends.

Why it is fast: columns, not matrices, go down; activations that act number by number are taken into
account once, after the squares have been added up (``Layer.top``); a part of the batch at a time
stays in the cache. Where z has several positions a sample (convolutions, tokens) the weight sees
their sum, so b_k and the patches are multiplied out before they are squared.

Sources: LeCun, Denker & Solla 1989, who keep the diagonal only on the way down; Dangel, Kunstner &
Hennig, BackPACK, ICLR 2020, for exact diagonals by columns. What a network must be for this to hold
is checked in :mod:`teachkit.engine.flow`.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks, losses, weights
from teachkit.core.layers import UncoveredError
from teachkit.core.objective import sample_gradients
from teachkit.core.types import Batch, Loss, Params
from teachkit.engine import dense
from teachkit.engine.columns import Curvature, add_bends, squares
from teachkit.engine.flow import Flow, parts

METHODS = ("auto", "backward", "products")
Gather = Callable[[Flow, Tensor], dict[str, Curvature]]


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

    Two ways, and ``.method`` of the result says which one ran. "backward" takes a few passes:
    networks of Linear, Conv1d and Conv2d layers in any graph with activations and operations that
    are linear in pieces between them, and cross-entropy, MSE or BCE as a mean. "products" takes one
    Hessian-vector product per weight and works for any module. "auto" takes the first where it
    can; ``.why`` says what stood in its way.

    For ReLU the result is the diagonal of the Gauss–Newton matrix as well; kinks are not seen.

    Args:
        model: any module; it is unchanged.
        batch: (x, y); the result is of the mean over these samples.
        loss: a mean loss.
        biases: also the biases of the Linear and Conv layers.
        method: "auto", "backward" or "products".
        progress: show a progress bar where the slow way takes long.

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
            sums = _sums(model, batch, from_loss(loss, bends=True), biases)
            return Diagonal(sums, "backward", "covered")
        except UncoveredError as reason:
            if method == "backward":
                raise
            why = str(reason)
    exact = dense.by_products(model, batch, loss, biases=biases, progress=progress)
    return Diagonal(exact, "products", why)


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
    return _sums(model, batch, from_loss(loss, bends=False), biases)


def fisher_diagonal(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    kind: losses.Labels = "empirical",
    generator: torch.Generator | None = None,
) -> Params:
    """The diagonal of the Fisher matrix, f_i = (1/N) Σₙ E g_ni², for every prunable weight.

    Args:
        model: a network that is covered, see :func:`diagonal`.
        batch: (x, y).
        loss: a mean loss.
        kind: which labels the gradients are taken at, see ``core.losses.output_gradients``.
        generator: draws the labels where kind is "sampled".

    Raises:
        UncoveredError: another network.

    """
    outputs: list[Tensor] = []

    def gather(flow: Flow, y: Tensor) -> dict[str, Curvature]:
        outputs.append(flow.output.detach())
        toward = losses.output_gradients(outputs[-1], y, loss, kind, generator)
        return squares(flow, toward / len(toward) ** 0.5)

    sums = _sums(model, batch, gather, biases=False)
    if kind == "empirical" and len(outputs) > 1:  # a mean within each part, but over all of them?
        sample_gradients(loss, torch.cat(outputs), batch[1])
    return sums


def from_loss(loss: Loss, *, bends: bool) -> Gather:
    """What gathers the curvature of a part of the samples: the loss's, and with ``bends`` φ″'s too."""

    def gather(flow: Flow, y: Tensor) -> dict[str, Curvature]:
        output = checks.finite("the network's output", flow.output.detach())
        end = losses.derivatives(loss, output, y)
        gathered = squares(flow, end.columns, end.size)
        if bends:
            add_bends(flow, end.gradient, gathered)
        return gathered

    return gather


def _sums(model: nn.Module, batch: Batch, gather: Gather, biases: bool) -> Params:
    """The mean over the samples of what is gathered; zero for a layer that the output does not need."""
    wanted = weights.prunable(model, biases=biases)
    total = {name: torch.zeros_like(w).detach() for name, w in wanted.items()}
    for flow, y in parts(model, batch) if wanted else ():
        for name, curvature in gather(flow, y).items():
            of_weight, of_bias = curvature.sums()
            total[name] += of_weight.reshape(total[name].shape)
            bias = name.removesuffix("weight") + "bias"
            if bias in total:
                total[bias] += of_bias
    n = len(batch[0])
    return {
        name: checks.finite(f"the diagonal of {name!r}", h.div_(n)) for name, h in total.items()
    }
