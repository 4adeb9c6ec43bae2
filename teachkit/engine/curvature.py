"""The exact diagonal of the Hessian, of Gauss–Newton and of Fisher, in the time of about two passes.

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

from collections.abc import Callable, Iterable, Iterator
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks, layers, losses, weights
from teachkit.core.layers import UncoveredError, does_more, patches, positions
from teachkit.core.recorder import Call
from teachkit.core.types import Batch, Loss, Params
from teachkit.engine import dense
from teachkit.engine.flow import ONE_TO_ONE, Flow, Layer, parts, pull, slope

METHODS = ("auto", "backward", "products")
Gather = Callable[[Flow, Tensor], dict[str, "Curvature"]]


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

    def gather(flow: Flow, y: Tensor) -> dict[str, Curvature]:
        toward = losses.output_gradients(flow.output.detach(), y, loss, kind, generator)
        return squares(flow, toward / len(toward) ** 0.5)

    return _sums(model, batch, gather, biases=False)


class Curvature:
    """What one layer's weights have gathered from the columns that came down to it, by sample.

    For a simple layer ``at_top`` and ``at_z`` (n, out): the diagonals of H at the layer's ``top``
    and at its z. For others ``per_weight`` (n, out, numbers a patch) and ``per_bias`` (n, out).
    """

    def __init__(self, layer: Layer) -> None:
        self.layer = layer
        self.at_top: Tensor | None = None
        self.at_z: Tensor | None = None
        self.per_weight: Tensor | None = None
        self.per_bias: Tensor | None = None

    def add(self, b: Tensor, weight: Tensor | None = None) -> None:
        """Add b² for a column b at the layer's target, times a number a sample (n,)."""
        if self.layer.simple:
            scaled = b if weight is None else b * weight[:, None]
            self.at_top = scaled * b if self.at_top is None else self.at_top.addcmul_(scaled, b)
            return
        rows = positions(self.layer.module, b)
        square, square_of_bias = self.outer(rows) ** 2, rows.sum(1) ** 2
        if weight is not None:
            square, square_of_bias = (
                square * weight[:, None, None],
                square_of_bias * weight[:, None],
            )
        self._add_per_weight(square, square_of_bias)

    def add_diagonal(self, r: Tensor) -> None:
        """Add a diagonal matrix r at the layer's output, shaped as z."""
        if self.layer.simple:
            self.at_z = r if self.at_z is None else self.at_z + r
            return
        rows = positions(self.layer.module, r)
        self._add_per_weight(self.outer(rows, squared=True), rows.sum(1))

    def outer(self, rows: Tensor, *, squared: bool = False) -> Tensor:
        """Σ over positions of rows ⊗ patches (or patches²), (n, out, numbers a patch)."""
        read = self.patches**2 if squared else self.patches
        apart = rows.mT.reshape(len(rows), read.shape[1], -1, rows.shape[1])  # group by group
        product: Tensor = apart @ read
        return product.flatten(1, 2)

    @cached_property
    def patches(self) -> Tensor:
        """What each position of the layer reads, (n, groups, positions, numbers a patch)."""
        return patches(self.layer.module, self.layer.a.detach())

    def diagonal(self) -> Tensor:
        """The diagonal of H_z of a simple layer, (n, out)."""
        total = self.at_z
        if self.at_top is not None:
            top, z = self.layer.top, self.layer.z
            down = self.at_top if top is z else self.at_top * slope(top, z) ** 2
            total = down if total is None else total + down
        return torch.zeros_like(self.layer.z) if total is None else total

    def sums(self) -> tuple[Tensor, Tensor]:
        """Σ over the samples of the curvature of each weight and of each bias."""
        if self.layer.simple:
            D = self.diagonal()
            return D.T @ self.layer.a.detach() ** 2, D.sum(0)
        if self.per_weight is None or self.per_bias is None:
            w = self.layer.module.weight
            return torch.zeros_like(w), w.new_zeros(len(w))  # type: ignore[operator, arg-type]
        return self.per_weight.sum(0), self.per_bias.sum(0)

    def _add_per_weight(self, weight: Tensor, bias: Tensor) -> None:
        self.per_weight = weight if self.per_weight is None else self.per_weight.add_(weight)
        self.per_bias = bias if self.per_bias is None else self.per_bias.add_(bias)


def from_loss(loss: Loss, *, bends: bool) -> Gather:
    """What gathers the curvature of a part of the samples: the loss's, and with ``bends`` φ″'s too."""

    def gather(flow: Flow, y: Tensor) -> dict[str, Curvature]:
        output = checks.finite("the network's output", flow.output.detach())
        gradient, columns = losses.derivatives(loss, output, y)
        gathered = squares(flow, columns)
        if bends:
            _add_bends(flow, gradient, gathered)
        return gathered

    return gather


def squares(flow: Flow, columns: Tensor) -> dict[str, Curvature]:
    """Σ_k (Jᵀ s_k)² at each layer for columns (k, n, ...) at the output, by name of the weight."""
    gathered = {layer.weight: Curvature(layer) for layer in flow.layers}
    _descend(flow.output, columns, None, list(gathered.values()))
    return gathered


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


def _descend(
    source: Tensor, columns: Iterable[Tensor], weight: Tensor | None, into: list[Curvature]
) -> None:
    """Pull columns (n, ...) from a source down to the layers, column k with a weight[:, k] a sample."""
    if not source.requires_grad:
        return
    for k, column in enumerate(columns):
        pulled = pull(source, [each.layer.top for each in into], column)
        into = [each for each, b in zip(into, pulled, strict=True) if b is not None]
        for each, b in zip(into, [b for b in pulled if b is not None], strict=True):
            each.add(b, None if weight is None else weight[:, k])
        if not into:
            return


def _add_bends(flow: Flow, gradient: Tensor, gathered: dict[str, Curvature]) -> None:
    """Add what each curved activation φ contributes, r = φ″(u) ⊙ ∂ℓ/∂φ at its input u."""
    if not flow.output.requires_grad:
        return
    slopes = pull(flow.output, [call.output for call in flow.curved], gradient)
    for call, delta in zip(flow.curved, slopes, strict=True):
        if delta is not None and call.input.requires_grad:
            _bend(flow, call.input, _second(call) * delta, gathered)


def _second(call: Call) -> Tensor:
    """φ″ at the input of an activation, by autograd: each output depends on its own input alone."""
    with torch.enable_grad():
        u = call.input.detach().requires_grad_()
        (first,) = torch.autograd.grad(call.layer(u).sum(), u, create_graph=True)
        return torch.autograd.grad(first.sum(), u)[0]


def _bend(flow: Flow, u: Tensor, r: Tensor, gathered: dict[str, Curvature]) -> None:
    """Add a diagonal matrix r at a tensor u to every layer below it."""
    by_output = {id(layer.z): layer for layer in flow.layers}
    others = dict(gathered)
    u, r = _down(flow, u, r, ("max pool",))
    layer = by_output.get(id(u))
    if layer is None:
        _descend(u, _units(u), r.flatten(1), list(others.values()))
        return
    others.pop(layer.weight).add_diagonal(r)
    if not layer.a.requires_grad:
        return
    if not layer.simple:
        _descend(layer.z, _units(layer.z), r.flatten(1), list(others.values()))
        return
    z, diagonal = _down(flow, layer.a, _squared(layer, r))
    below = by_output.get(id(z))
    if below is not None and below.simple:
        others.pop(below.weight).add_diagonal(diagonal)
    rows = (row.expand_as(layer.a) for row in layer.module.weight.detach())  # type: ignore[operator]
    _descend(layer.a, rows, r, list(others.values()))


def _down(flow: Flow, at: Tensor, r: Tensor, also: tuple[str, ...] = ()) -> tuple[Tensor, Tensor]:
    """A diagonal carried down to the first tensor that was not made number by number from another.

    For a map whose every output has one input with slope s: r goes to r s². ``also`` may name
    "max pool", whose outputs may share an input: right only where all but the diagonal is zero.
    """
    while (call := flow.made_by.get(id(at))) is not None and call.input.requires_grad:
        role = "" if does_more(call.layer) else layers.kind(call.layer).role
        if role not in (*ONE_TO_ONE, *also):
            break
        (carried,) = pull(at, [call.input], r)
        assert carried is not None  # noqa: S101 -- the call made it from its input
        r = carried if role in also else carried * slope(at, call.input)
        at = call.input
    return at, r


def _squared(layer: Layer, r: Tensor) -> Tensor:
    """The diagonal of Wᵀ diag(r) W at the input of a simple layer: r W²."""
    return r @ layer.module.weight.detach() ** 2  # type: ignore[operator]


def _units(at: Tensor) -> Iterator[Tensor]:
    """A column for each entry of a tensor (n, ...): one there, in each sample."""
    for unit in range(at[0].numel()):
        column = torch.zeros_like(at)
        column.view(len(at), -1)[:, unit] = 1
        yield column
