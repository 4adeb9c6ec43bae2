"""The gradient of each sample's loss, for any module: the rows that every Fisher matrix is made of.

A sample's gradient is g_n = J_nᵀ s_n with the Jacobian J_n of the network's outputs and the loss's
gradient s_n there. The kinds of Fisher matrix differ in the labels that give s_n alone, so
``core.losses`` finds the s_n of all samples first, and J_nᵀ is applied here.

``torch.func.vmap`` runs the samples side by side, not one backward pass after the other: a layer's
products become one batched product. It takes n numbers a sample, so :func:`gradient_chunks` hands
out as many rows as fit into 64 MB, and who sums them (a matrix, its blocks, its diagonal) stores none.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import TypedDict, Unpack

import torch
from torch import Tensor, nn
from torch.func import grad
from torch.nn.functional import cross_entropy

from teachkit.core import checks
from teachkit.core.copies import caller, still_copy
from teachkit.core.layers import UncoveredError
from teachkit.core.losses import Labels, output_gradients
from teachkit.core.objective import mapped
from teachkit.core.types import Batch, Loss, Params
from teachkit.core.weights import prunable, split

STORE_LIMIT = 4e9  # bytes of gradients kept at once
CHUNK = 2**23  # numbers in work at once: 64 MB in float64


class LabelOptions(TypedDict, total=False):
    """Whose labels give the gradients: the last two arguments of :func:`gradients`."""

    kind: Labels
    generator: torch.Generator | None


def gradients(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    kind: Labels = "empirical",
    generator: torch.Generator | None = None,
) -> Tensor:
    """G, one gradient of the loss per row, (m, n), so that the Fisher matrix is F = GᵀG / m.

    The columns run over the prunable weights in order, each flattened. Evaluation mode.

    Args:
        model: any module whose samples do not mix.
        batch: (x, y) with N samples.
        loss: a mean loss.
        kind: "empirical": at the labels y, m = N; "sampled": at one label per sample drawn from the
            model, m = N; "true": at every label, weighed by its probability under the model, m = K·N
            with K classes or outputs.
        generator: draws the labels where kind is "sampled".

    Raises:
        ValueError: more than 4 GB, a loss that is no mean, or one whose labels cannot be drawn.

    >>> net = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    >>> tuple(gradients(net, (torch.ones(5, 4), torch.zeros(5, dtype=torch.int64))).shape)
    (5, 18)

    """
    parts = gradient_chunks(model, batch, loss, kind=kind, generator=generator, limit=STORE_LIMIT)
    return torch.cat(list(parts))


def gradient_chunks(
    model: nn.Module,
    batch: Batch,
    loss: Loss = cross_entropy,
    *,
    kind: Labels = "empirical",
    generator: torch.Generator | None = None,
    biases: bool = False,
    limit: float = math.inf,
) -> Iterator[Tensor]:
    """The rows of :func:`gradients` a few at a time, at most 64 MB.

    ``biases`` counts the biases as weights; ``limit`` is the most bytes that all rows may take.
    """
    x, y = checks.batch(batch)
    frozen, weights = frozen_copy(checks.model(model, x), biases)
    run = caller(frozen, x, model)
    n = sum(w.numel() for w in weights.values())
    if not n:
        raise ValueError("the model has no prunable weight")
    toward = output_gradients(apart(run, x), y, loss, kind, generator)
    m = toward.shape[:2].numel()
    size = m * n * toward.element_size()
    if size > limit:
        raise ValueError(
            f"{m} gradients of {n} weights take {size / 1e9:.1f} GB, more than "
            f"{limit / 1e9:.0f} GB; use fewer samples"
        )

    def pulled(given: Params, sample: Tensor, s: Tensor) -> Tensor:
        z: Tensor = run(given, sample[None])[0]
        return (z * s).sum()

    def row(sample: Tensor, s: Tensor) -> Tensor:
        return side_by_side(grad(pulled)(weights, sample, s), 0)

    rows = max(1, CHUNK // n)
    for label in toward:
        for part, s in zip(torch.split(x, rows), torch.split(label, rows), strict=True):
            yield mapped(row)(part, s)


def apart(run: Callable[[Params, Tensor], Tensor], x: Tensor) -> Tensor:
    """The outputs; UncoveredError where those of the first or last sample need the others."""
    output = run({}, x)
    near = torch.finfo(output.dtype).eps ** 0.5
    for at in (0, -1):
        try:
            alone = run({}, x[at, None])
        except Exception as error:  # whatever its code raises on a single sample
            why = str(error).split("\n")[0]
            raise UncoveredError(f"the model does not run on one sample alone: {why}") from error
        if not torch.allclose(alone, output[at, None], near, near * float(output.abs().max())):
            raise UncoveredError(
                "an output depends on more than its own sample, so that no sample has a gradient of "
                "its own"
            )
    return output


def mean_squares(
    model: nn.Module, batch: Batch, loss: Loss = cross_entropy, **labels: Unpack[LabelOptions]
) -> Params:
    """(1/m) Σ g², the diagonal of the Fisher matrix, one tensor per prunable weight; nothing is stored."""
    chunks = gradient_chunks(model, batch, loss, **labels)
    return split(mean(chunks, lambda G: (G * G).sum(0)), prunable(model))


def mean(chunks: Iterable[Tensor], each: Callable[[Tensor], Tensor]) -> Tensor:
    """The mean over all rows of what ``each`` sums over those of a chunk."""
    total, m = torch.zeros((), device="cpu"), 0
    for G in chunks:
        total, m = total + each(G), m + len(G)
    return total / m


def frozen_copy(model: nn.Module, biases: bool) -> tuple[nn.Module, Params]:
    """A copy in evaluation mode that records nothing, and its prunable weights."""
    frozen = still_copy(model)
    return frozen, prunable(frozen, biases=biases)


def side_by_side(parts: Params, leading: int) -> Tensor:
    """The tensors of a dict as one, all but the leading dimensions flattened."""
    return torch.cat([p.flatten(leading) for p in parts.values()], dim=-1)
