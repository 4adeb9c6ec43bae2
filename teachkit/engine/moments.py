"""How single samples' losses see each weight: means and spreads, without storing a number a sample.

In a Linear layer the gradient of sample n is δ_n a_nᵀ and its curvature D_n a_n²ᵀ, with δ the gradient
and D the curvature at the layer's outputs and a its inputs. So the sums over the samples of g, h, g²,
h² and gh are five products of matrices, δᵀa, Dᵀa², (δ²)ᵀa², (D²)ᵀa⁴ and (δD)ᵀa³. Layers with several
positions a sample are multiplied out first. A sum over chosen weights, one number a sample, takes
products of the same kind. What a network must be for this is said in :mod:`teachkit.engine.flow`.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from teachkit.core import checks, losses, weights
from teachkit.core.layers import positions
from teachkit.core.types import Batch, Loss, Params
from teachkit.engine.columns import Curvature, pull
from teachkit.engine.curvature import from_loss
from teachkit.engine.flow import Flow, parts


class Spread(NamedTuple):
    """Mean and standard deviation over the samples, per weight; the deviation divides by n."""

    mean: Params
    sd: Params


class PerSample(NamedTuple):
    """How single samples' losses see each weight: ∂ℓ/∂w, ∂²ℓ/∂w², and −g w + ½ h w²."""

    gradient: Spread
    curvature: Spread
    change: Spread


class Samples(NamedTuple):
    """The derivatives of each sample's loss at one layer.

    Of a simple layer ``first`` δ and ``second`` D (n, out) are those at its outputs, to be multiplied
    by ``read`` a (n, in); of others those of each weight, (n, out, numbers a patch), and ``read`` is
    None.
    """

    first: Tensor
    second: Tensor
    read: Tensor | None

    def moments(self) -> list[Tensor]:
        """Sums over the samples of g, h, g², h² and gh, each (out, numbers that an output reads)."""
        g, h, a = self
        if a is None:
            return [t.sum(0) for t in (g, h, g * g, h * h, g * h)]
        left = ((g, 1), (h, 2), (g**2, 2), (h**2, 4), (g * h, 3))
        return [t.T @ a**power for t, power in left]

    def change(self, w: Tensor) -> Tensor:
        """Σ over the weights w of −g_n w + ½ h_n w², (n,); w as the layer's weight, zeros left out."""
        g, h, a = self
        rows = w.flatten(1)
        if a is None:
            return (-g * rows + 0.5 * h * rows**2).sum((1, 2))
        return (0.5 * h * (a**2 @ (rows**2).T) - g * (a @ rows.T)).sum(1)


def samples(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy
) -> Iterator[dict[str, Samples]]:
    """The derivatives of single samples' losses for a part of the batch at a time, by weight.

    Raises:
        ValueError: a network or loss that is not covered (``UncoveredError``), see
            :func:`teachkit.engine.curvature.diagonal`.

    """
    gather = from_loss(loss, bends=True)
    for flow, y in parts(model, batch):
        gradient = losses.derivatives(loss, flow.output.detach(), y).gradient
        yield _samples(flow, gradient, gather(flow, y))


def moments(model: nn.Module, batch: Batch, loss: Loss = cross_entropy) -> PerSample:
    """Mean and spread over samples of gradient, curvature and predicted change, per weight.

    The change c = −g w + ½ h w² is what the second-order Taylor polynomial predicts for the loss of
    one sample when the weight is removed.

    Raises:
        ValueError: a network or loss that is not covered (``UncoveredError``), see
            :func:`teachkit.engine.curvature.diagonal`.

    >>> net = nn.Linear(1, 1, bias=False)
    >>> _ = net.weight.data.fill_(2.0)
    >>> batch = torch.tensor([[1.0], [3.0]]), torch.zeros(2, 1)
    >>> moments(net, batch, nn.functional.mse_loss).curvature  # 2 x²
    Spread(mean={'weight': tensor([[10.]])}, sd={'weight': tensor([[8.]])})

    """
    wanted = weights.prunable(checks.model(model, checks.batch(batch)[0]))
    total = {name: [torch.zeros_like(w.flatten(1)).detach()] * 5 for name, w in wanted.items()}
    for part in samples(model, batch, loss) if wanted else ():
        for name, layer in part.items():
            total[name] = [a + b for a, b in zip(total[name], layer.moments(), strict=True)]
    spreads: dict[str, list[Tensor]] = {}
    for name, w in wanted.items():
        means = [(each / len(batch[0])).reshape(w.shape) for each in total[name]]
        spreads[name] = _spread(w.detach(), *means)
    columns = [{name: each[i] for name, each in spreads.items()} for i in range(6)]
    return PerSample(Spread(*columns[:2]), Spread(*columns[2:4]), Spread(*columns[4:]))


def _samples(flow: Flow, gradient: Tensor, gathered: dict[str, Curvature]) -> dict[str, Samples]:
    """The derivatives at every layer, once the curvature has been gathered."""
    outputs = [layer.z for layer in flow.layers]
    deltas = pull(flow.output, outputs, gradient) if flow.output.requires_grad else [None]
    made = {}
    for layer, delta in zip(flow.layers, deltas, strict=True):
        curvature, at = (
            gathered[layer.weight],
            torch.zeros_like(layer.z) if delta is None else delta,
        )
        if layer.simple:
            made[layer.weight] = Samples(at, curvature.diagonal(), layer.a.detach())
        else:
            g = curvature.outer(positions(layer.module, at))
            h = torch.zeros_like(g) if curvature.per_weight is None else curvature.per_weight
            made[layer.weight] = Samples(g, h, None)
    return made


def _spread(w: Tensor, g: Tensor, h: Tensor, gg: Tensor, hh: Tensor, gh: Tensor) -> list[Tensor]:
    """Means and standard deviations of g, h and c = −g w + ½ h w² from the five moments."""
    c = -g * w + 0.5 * h * w**2
    cc = gg * w**2 - gh * w**3 + 0.25 * hh * w**4
    return [v for m, square in ((g, gg), (h, hh), (c, cc)) for v in (m, _sd(m, square))]


def _sd(mean: Tensor, square: Tensor) -> Tensor:
    return (square - mean**2).clamp(min=0).sqrt()
