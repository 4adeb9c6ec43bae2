"""Rounding that others make up for: GPTQ, on a layer and on a network.

Rounding to the nearest value leaves an error at each weight by itself. **GPTQ** (Frantar, Ashkboos, Hoefler
& Alistarh, ICLR 2023) lets the weights further right make up for it. It is the single pass of
:func:`teachkit.engine.refit.swept`, which prunes with "zero", with "the nearest value of the grid" instead:
a column j of H⁻¹ without the inputs before, times the error over P_jj, is the step of the surgeon.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from teachkit.core import checks
from teachkit.core.types import Batch
from teachkit.core.weights import prunable
from teachkit.engine.grams import gram, layer_grams
from teachkit.engine.grids import (
    Grid,
    Kind,
    Per,
    Quantized,
    columns,
    grid,
    matrix,
    stored_as,
    whole_numbers,
)
from teachkit.engine.layerwise import with_matrices
from teachkit.engine.refit import Settle, swept, upper


def gptq(
    W: Tensor, inputs: Tensor, to: Grid, *, damping: float = 1e-2, order: str = "given"
) -> Tensor:
    """The values of a layer (out, in) so that its output on the inputs X (n, in) changes little.

    Column after column goes to its nearest values, and the columns further right move to make up for the
    error, by the step of Optimal Brain Surgeon. A weight that is zero stays zero.

    Source: Frantar, Ashkboos, Hoefler & Alistarh, GPTQ, ICLR 2023, algorithm 1.

    Args:
        W: the weights.
        inputs: what the layer sees.
        to: the grid; it stays what it was.
        damping: λ on the diagonal of H = XᵀX, in units of its mean.
        order: in which columns go, "given" or "large first", those of the largest ‖x_j‖.

    """
    matrix("W", W)
    if checks.finite("inputs", inputs).ndim != 2 or inputs.shape[1] != W.shape[1]:
        shapes = f"{tuple(W.shape)}, got {tuple(inputs.shape)}"
        raise ValueError(f"inputs must have the shape (n, {W.shape[1]}) to fit the weight {shapes}")
    return gptq_gram(W.detach().double(), gram(inputs), to, damping, order).to(W.dtype)


def gptq_gram(W: Tensor, H: Tensor, to: Grid, damping: float, order: str = "given") -> Tensor:
    """As :func:`gptq`, from H (in, in) in place of the inputs; all in float64."""
    if order not in ("given", "large first"):
        raise ValueError(f"order must be 'given' or 'large first', got {order!r}")
    at = torch.arange(len(H), device=H.device)
    if order == "large first":
        at = H.diagonal().argsort(descending=True, stable=True)
    scale, zero = (part.double().expand(len(W), -1)[:, at] for part in columns(to, len(H)))
    old = W[:, at] == 0

    def nearest(cols: slice, moved: Tensor) -> Settle:
        s, z, gone = scale[:, cols], zero[:, cols], old[:, cols]

        def settle(j: int, column: Tensor) -> Tensor:
            q = whole_numbers(column, s[:, j], z[:, j], to)
            return ((q - z[:, j]) * s[:, j]).masked_fill(gone[:, j], 0.0)

        return settle

    settled = swept(W[:, at], upper(H[at][:, at], damping), nearest)
    return torch.zeros_like(W).index_copy_(1, at, settled)


def round_layers(
    model: nn.Module,
    bits: int = 8,
    batch: Batch | None = None,
    *,
    kind: Kind = "symmetric",
    per: Per = "channel",
    clip: float | Literal["best"] = 1.0,
    damping: float = 1e-2,
    order: str = "given",
) -> tuple[nn.Module, dict[str, Quantized]]:
    """A new model with all prunable weights on grids, and these weights as they are stored.

    Without a batch each goes to its nearest value; with one, (x, y), of which only x is used, by
    :func:`gptq`, each layer on the inputs that the model given has there. Biases stay. A weight that is
    zero stays zero.
    """
    weights = {n: w.detach().flatten(1) for n, w in prunable(model).items()}
    grids = {n: grid(W, bits, kind=kind, per=per, clip=clip) for n, W in weights.items()}
    near = weights
    if batch is not None:
        grams = layer_grams(model, checks.batch(batch)[0])
        near = {n: _by_groups(W, grams[n], grids[n], damping, order) for n, W in weights.items()}
    stored = {n: stored_as(near[n], grids[n], w.shape) for n, w in prunable(model).items()}
    return with_matrices(model, {n: each.dense() for n, each in stored.items()}), stored


def _by_groups(W: Tensor, grams: Tensor, to: Grid, damping: float, order: str) -> Tensor:
    """GPTQ of a layer; the groups of a convolution see inputs of their own."""
    count, made = len(grams), []
    for i, (part, H) in enumerate(zip(W.double().chunk(count), grams, strict=True)):
        own = slice(i * len(part), (i + 1) * len(part)) if len(to.scale) > 1 else slice(None)
        made.append(
            gptq_gram(part, H, to._replace(scale=to.scale[own], zero=to.zero[own]), damping, order)
        )
    return torch.cat(made).to(W.dtype)
