"""Columns pulled down through a pass, and what each layer's weights gather from their squares.

A column s at some tensor is a vector a sample; pulled down to a layer's z it is b = Jᵀ s, and adds
c b² to the diagonal of that layer's curvature (c a number a sample). Columns come from the loss, at the
output, and from the bends of activations, further down. See :mod:`teachkit.engine.curvature`.
"""

from collections.abc import Iterable, Iterator
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.autograd import grad

from teachkit.core import layers
from teachkit.core.layers import does_more, patches, positions
from teachkit.engine.flow import ONE_TO_ONE, Flow, Layer


def pull(source: Tensor, targets: list[Tensor], column: Tensor) -> list[Tensor | None]:
    """Jᵀ s for a column s at ``source``: to each target, None where the source does not depend on it."""
    if not targets:
        return []
    return list(grad(source, targets, column, retain_graph=True, allow_unused=True))


def slope(top: Tensor, z: Tensor) -> Tensor:
    """The derivative of each entry of ``top`` with respect to its one entry of z, shaped as z."""
    (found,) = grad(top, z, torch.ones_like(top), retain_graph=True)
    return found


def second_derivative(layer: nn.Module, u: Tensor) -> Tensor:
    """φ″(u) of a curved activation, by autograd: each output depends on its own input alone.

    >>> second_derivative(nn.Tanh(), torch.zeros(2))
    tensor([-0., -0.])
    """
    with torch.enable_grad():
        at = u.detach().requires_grad_()
        (first,) = grad(layer(at).sum(), at, create_graph=True)
        return grad(first.sum(), at)[0]


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


def squares(flow: Flow, columns: Tensor, size: Tensor | None = None) -> dict[str, Curvature]:
    """Σ_k c_k (Jᵀ s_k)² at each layer, by name of the weight.

    The columns s_k (k, n, ...) stand at the output, and ``size`` c (n, k) is 1 where it is None.
    """
    gathered = {layer.weight: Curvature(layer) for layer in flow.layers}
    _descend(flow.output, columns, size, list(gathered.values()))
    return gathered


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


def add_bends(flow: Flow, gradient: Tensor, gathered: dict[str, Curvature]) -> None:
    """Add what each curved activation φ contributes, r = φ″(u) ⊙ ∂ℓ/∂φ at its input u."""
    if not flow.output.requires_grad:
        return
    slopes = pull(flow.output, [call.output for call in flow.curved], gradient)
    for call, delta in zip(flow.curved, slopes, strict=True):
        if delta is not None and call.input.requires_grad:
            _bend(flow, call.input, second_derivative(call.layer, call.input) * delta, gathered)


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
