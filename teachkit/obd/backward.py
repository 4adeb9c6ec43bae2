"""The exact diagonal of the Hessian, carried back through a chain of layers sample by sample.

For one sample let H_z be the Hessian of its loss with respect to the outputs z of a layer. Then
for z = Wa the weight W_ij has the curvature (H_z)_ii a_j². Going down, H_a = Wᵀ H_z W, and through
an activation a = φ(u): H_u = D H_a D + diag(φ″(u) ⊙ ∂ℓ/∂a), D = diag φ′(u). The first term alone is
the Gauss-Newton matrix; the second vanishes where φ is piecewise linear.

H_z is never formed. The loss gives at most C − 1 columns S with H = S Sᵀ, and each bend of an
activation a diagonal: one layer down the diagonal of Wᵀ diag(r) W is r W², and only farther down
it needs columns of its own, one a unit.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.types import Batch, Loss
from teachkit.obd import losses
from teachkit.obd.chain import chain, forward
from teachkit.obd.stages import Conv, Mixing, Stage, Weighted

SAMPLES = 2**20  # numbers in the largest layer of the samples taken at a time
COLUMNS = 2**18  # numbers in the columns carried at a time: they should stay in the cache


class Layer(NamedTuple):
    """Derivatives of each sample's loss at one weighted layer.

    ``delta`` (n, out, ...) is the gradient at the layer's outputs. ``curvature`` is, for Linear,
    the diagonal of H_z (n, out), and for Conv the curvature of each weight (n, out, numbers a
    patch); ``bias`` (n, out) is the curvature of each bias.
    """

    stage: Weighted
    delta: Tensor
    curvature: Tensor
    bias: Tensor


def chunks(
    model: nn.Module, batch: Batch, loss: Loss, *, curved: bool = True
) -> Iterator[dict[str, Layer]]:
    """The derivatives for a part of the samples at a time; keys are the layers' weights.

    With ``curved=False`` the term φ″ is left out: the Gauss–Newton matrix instead of the Hessian.

    Raises:
        UncoveredError: the network or the loss is not covered; the message says why.

    """
    x, y = checks.batch(batch)
    names = {id(p): name for name, p in checks.model(model, x).named_parameters()}
    layers = chain(model)
    with torch.no_grad():
        size = max(1, SAMPLES // _widest(layers, x[:1]))
        for rows in torch.split(torch.arange(len(x)), size):
            run = forward(layers, x[rows])
            end = losses.derivatives(
                loss, checks.finite("the network's output", run[-1].z), y[rows]
            )
            found = Walk(run, end, curved).layers()
            yield {names[id(layers[i].weight)]: layer for i, layer in found.items()}


def _widest(layers: list[nn.Module], x: Tensor) -> int:
    """The most numbers a sample that any stage holds."""
    run = forward(layers, x)
    sizes = [s.z.numel() for s in run]
    return max([x.numel(), *sizes, *(s.patches().numel() for s in run if isinstance(s, Conv))])


class Walk:
    """One pass down the chain that gathers the curvature at every weighted layer.

    ``below[i]`` is the diagonal of H at the input of the mixing stage i (or at the network's
    output, for i = len(run)) as far as columns bring it there; ``fresh[i]`` the diagonal matrix at
    the output of stage i that bends and elementwise losses have added since the last mixing stage.
    """

    def __init__(self, run: list[Stage], end: losses.AtOutput, curved: bool = True) -> None:
        self.run, self.end, self.curved = run, end, curved
        self.mixing = [i for i, s in enumerate(run) if s.mixing]
        self.lowest = next((i for i, s in enumerate(run) if s.weight is not None), len(run))
        self.delta = self._gradients()
        self.below: dict[int, Tensor] = {}
        self.fresh: dict[int, Tensor] = {}
        self.patches = {i: s.patches() for i, s in enumerate(run) if isinstance(s, Conv)}
        self.weights: dict[int, Tensor] = {}
        self.biases: dict[int, Tensor] = {}

    def layers(self) -> dict[int, Layer]:
        """The result, by position in the chain."""
        self._bends()
        if self.end.columns is not None:
            self._add(self.below, len(self.run), self.end.columns, None)
            for S in torch.split(self.end.columns, self._block(), dim=1):
                self._descend(len(self.run), S, None)
        for i, r in self.fresh.items():
            self._from_units(i, r)
        return {i: self._layer(i, s) for i, s in enumerate(self.run) if isinstance(s, Weighted)}

    def _gradients(self) -> dict[int, Tensor]:
        """∂ℓ/∂z at the output of every stage down to the lowest weighted one."""
        delta = {len(self.run) - 1: self.end.gradient}
        for i in range(len(self.run) - 1, self.lowest, -1):
            delta[i - 1] = self.run[i].pull(delta[i][:, None])[:, 0]
        return delta

    def _bends(self) -> None:
        """Collect the diagonal that each activation adds and carry it down to the next mixing stage."""
        r = self.end.diagonal
        for i in range(len(self.run) - 1, self.lowest - 1, -1):
            stage = self.run[i]
            if stage.mixing:
                if r is not None:
                    self.fresh[i] = r
                r = None
                continue
            r = None if r is None else stage.pull_diagonal(r)
            bend = stage.bend(self.delta[i]) if self.curved else None
            if bend is not None:
                r = bend if r is None else r + bend

    def _from_units(self, i: int, r: Tensor) -> None:
        """What the diagonal matrix r at the output of mixing stage i does below it."""
        stage = self.run[i]
        assert isinstance(stage, Mixing)  # noqa: S101
        if isinstance(stage, Conv):
            self._sum(self.weights, i, stage.per_weight(r[:, None], self.patches[i] ** 2)[:, 0])
            self._sum(self.biases, i, r.flatten(2).sum(2))
        if i == self.lowest:
            return
        short = stage.pull_diagonal(r)
        if short is not None:
            self._sum(self.below, i, short)
        if short is None or i > self._last():
            flat = r.flatten(1)
            for start in range(0, flat.shape[1], self._block()):
                w = flat[:, start : start + self._block()]
                S = stage.rows(start, start + w.shape[1]).expand(len(r), *[-1] * stage.a.ndim)
                if short is None:
                    self._add(self.below, i, S, w)
                self._descend(i, S, w)

    def _descend(self, top: int, S: Tensor, w: Tensor | None) -> None:
        """Carry columns S (n, k, ...), weighted by w (n, k), from the input of stage ``top`` down."""
        if top <= self._last():
            return
        for i in range(top - 1, self.lowest - 1, -1):
            stage = self.run[i]
            if isinstance(stage, Conv):
                self._add(self.weights, i, stage.per_weight(S, self.patches[i]), w)
                self._add(self.biases, i, S.flatten(3).sum(3), w)
            if i == self.lowest:
                return
            S = stage.pull(S)
            if stage.mixing:
                self._add(self.below, i, S, w)
            if i == self._last():
                return

    def _last(self) -> int:
        """Below this stage no column is needed: a Linear layer wants only the diagonal above it."""
        if self.lowest in self.patches:
            return self.lowest
        return self._above(self.lowest)

    def _above(self, i: int) -> int:
        """The next mixing stage above stage i, or the output."""
        return next((m for m in self.mixing if m > i), len(self.run))

    def _layer(self, i: int, stage: Weighted) -> Layer:
        if isinstance(stage, Conv):
            return Layer(stage, self.delta[i], self.weights[i], self.biases[i])
        D = self.below.get(above := self._above(i))
        for between in self.run[above - 1 : i : -1]:
            D = None if D is None else between.pull_diagonal(D)
        fresh = self.fresh.get(i)
        parts = [part for part in (D, fresh) if part is not None]
        total = torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]
        return Layer(stage, self.delta[i], total, total)

    def _block(self) -> int:
        """How many columns to carry at once."""
        widest = max(s.a[0].numel() for s in self.run[self.lowest + 1 :] or self.run)
        return max(1, COLUMNS // (len(self.end.gradient) * widest))

    def _add(self, into: dict[int, Tensor], i: int, S: Tensor, w: Tensor | None) -> None:
        """Add Σ over the columns of w S²."""
        weighted = S if w is None else S * w.reshape(*w.shape, *[1] * (S.ndim - 2))
        if i not in into:
            into[i] = S.new_zeros(S.shape[0], *S.shape[2:])
        if S.shape[1] == 1:
            into[i].addcmul_(weighted[:, 0], S[:, 0])
        else:
            into[i] += (weighted * S).sum(1)

    @staticmethod
    def _sum(into: dict[int, Tensor], i: int, part: Tensor) -> None:
        into[i] = into[i].add_(part) if i in into else part
