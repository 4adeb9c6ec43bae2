"""Lesson 07: what its explorers and figures draw, and its exercises."""

import math
import random

import numpy as np
import torch
from torch import Tensor, nn

from teachkit import magnitude, masks
from teachkit.show import plots, styles
from teachkit.show.exercises import Task, normal, uniform
from teachkit.show.pictures import Picture


def quality_threshold(model: nn.Module, layer: str, quality: float) -> Picture:
    """The weights of a layer, Han's threshold of quality × σ on both sides, and what it removes."""
    w = masks.prunable(model)[layer].detach()
    w = w[w != 0]
    sigma = float(w.std(correction=0))
    at = quality * sigma
    gone = float((w.abs() <= at).double().mean())
    figure, (axes,) = plots.canvas()
    counts, edges = np.histogram(w.numpy(), bins=60)
    axes.stairs(counts, edges, fill=True, **plots.BARS)
    density = np.exp(-((edges / sigma) ** 2) / 2) / (sigma * math.sqrt(2 * math.pi))
    axes.plot(
        edges,
        len(w) * (edges[1] - edges[0]) * density,
        label="normal",
        **styles.look("normal").line,
    )
    axes.axvspan(-at, at, color=styles.look("removed").colour, alpha=0.25, label="removed")
    for side in (-at, at):
        axes.axvline(side, **styles.look("removed").line)
    axes.legend(frameon=False, loc="upper right")
    expected = magnitude.removed_share(quality)
    share = f"{100 * gone:.0f} % removed; Gaussian weights: {100 * expected:.0f} %"
    says = f"q = {quality:g}, threshold {at:.3f}: {share}"
    curve = "the normal curve of the same σ"
    alt = f"Histogram of the weights of {layer}, {curve}, and the band |w| ≤ {at:.3f} removed: {share}."
    labels = f"weight of layer {layer}", "number of weights"
    return plots.finish(figure, alt, *labels, says=says)


Shapes = list[tuple[int, int]]


def partly_pruned(rng: random.Random) -> tuple[Tensor, float]:
    """A weight matrix (5, 6) with zeros from a round before, and a quality parameter.

    A weight lies between the thresholds of n and of n − 1; the weights do not average to zero.
    """
    w, gone = normal(rng, 5, 6) + 0.4, uniform(rng, 0, 1, 5, 6) < 0.4
    gone[0, 0], gone[0, 1:4] = True, False
    w = w.masked_fill(gone, 0.0)
    left = w[w != 0]
    between = (left.std() * left.std(correction=0)).sqrt()
    near = (left.abs() / between - rng.uniform(0.5, 1)).abs().argmin()
    return w, float(left[near].abs() / between)


def shapes(rng: random.Random, kind: str) -> tuple[Shapes, int]:
    """Layers of which ERK leaves a narrow one dense, and how many weights stay.

    "again": what that layer cannot take lifts the next above 1; "once": no second one.
    """
    wide = [(rng.randrange(80, 120), rng.randrange(60, 90)) for _ in range(2)]
    if kind == "again":
        sizes = [*wide, (2, 3), (4, 6)]
        keep = math.ceil(2.4 * sum(map(sum, sizes))) - 1  # (4, 6) has just below 24 / 10 · 10 / 24
    else:
        sizes, keep = [*wide, (2, rng.randrange(3, 6))], rng.randrange(4000, 6000)
    rng.shuffle(sizes)
    return sizes, keep


def layer(w: Tensor) -> nn.Linear:
    """A layer with these weights, (n,) or (outputs, inputs)."""
    made = nn.Linear(w.shape[-1], w.numel() // w.shape[-1], bias=False, dtype=w.dtype)
    made.weight.data = w.reshape(made.weight.shape).clone()
    return made


def kept(w: Tensor, q: float) -> Tensor:
    """Han's mask."""
    return magnitude.han_masks(layer(w), q)["weight"]


def lamp(w: Tensor) -> Tensor:
    """LAMP scores of a vector."""
    return magnitude.lamp_scores(layer(w))["weight"][0]


def cumulative(w: Tensor, descending: bool) -> Tensor:
    """The sum of the squares up to each weight, in one order or the other."""
    order = w.abs().argsort(descending=descending)
    sums = torch.empty_like(w)
    sums[order] = (w[order] ** 2).cumsum(0)
    return sums


def uncapped(sizes: Shapes, keep: int) -> list[float]:
    """ERK densities that may exceed 1."""
    return [keep / sum(sum(s) for s in sizes) * sum(s) / math.prod(s) for s in sizes]


def densities(sizes: Shapes, keep: int) -> list[float]:
    """ERK densities, with a layer that would exceed 1 left dense and the rest shared again."""
    shares = uncapped(sizes, keep)
    dense = [share >= 1 for share in shares]
    if not any(dense):
        return shares
    free = [s for s, d in zip(sizes, dense, strict=True) if not d]
    full = sum(math.prod(s) for s, d in zip(sizes, dense, strict=True) if d)
    rest = iter(densities(free, keep - full))
    return [1.0 if d else next(rest) for d in dense]


def shared_once(sizes: Shapes, keep: int) -> list[float]:
    """ERK densities whose rest is shared once, so that a second layer may exceed 1."""
    dense = [share >= 1 for share in uncapped(sizes, keep)]
    free = [s for s, d in zip(sizes, dense, strict=True) if not d]
    full = sum(math.prod(s) for s, d in zip(sizes, dense, strict=True) if d)
    rest = iter(uncapped(free, keep - full))
    return [1.0 if d else next(rest) for d in dense]


TASKS = {
    "07.1": Task(
        draw=partly_pruned,
        answer=kept,
        mistakes={
            "the zeros of earlier rounds do not count: take σ over the weights that are left": (
                lambda w, q: w.abs() > q * w.std(correction=0)
            ),
            "take the absolute value: a large negative weight stays": (
                lambda w, q: w > q * w[w != 0].std(correction=0)
            ),
            "this is the variance; the threshold takes the standard deviation": (
                lambda w, q: w.abs() > q * w[w != 0].var(correction=0)
            ),
            "divide by n, not by n − 1 (correction=0)": lambda w, q: w.abs() > q * w[w != 0].std(),
            "σ is the spread about the mean, not the root of the mean square": (
                lambda w, q: w.abs() > q * (w[w != 0] ** 2).mean().sqrt()
            ),
        },
    ),
    "07.2": Task(
        draw=lambda rng: (rng.uniform(0.2, 2.5),),
        answer=magnitude.removed_share,
        mistakes={
            "the share is not proportional to q: at q = 2 this would remove more than all": (
                lambda q: q * math.erf(1 / math.sqrt(2))
            ),
            "the share is not q times 68 %: at q = 2 that is more than all": lambda q: 0.68 * q,
            "this is the share that stays": lambda q: math.erfc(q / math.sqrt(2)),
            "erf belongs to exp(−t²); a normal distribution has exp(−t²/2)": math.erf,
            "this counts one side; small negative weights go as well": (
                lambda q: (1 + math.erf(q / math.sqrt(2))) / 2
            ),
        },
    ),
    "07.3": Task(
        draw=lambda rng: (normal(rng, 6),),
        answer=lamp,
        mistakes={
            "divide by the weights at least as large, not by all": lambda w: w**2 / (w**2).sum(),
            "these are the sums over the smaller weights; take the larger ones": (
                lambda w: w**2 / cumulative(w, descending=False)
            ),
            "the weight itself belongs into the sum": (
                lambda w: w**2 / (cumulative(w, descending=True) - w**2)
            ),
            "larger in size: −3 counts as larger than 2": lambda w: (
                w**2 / torch.stack([(w[w >= v] ** 2).sum() for v in w])
            ),
            "each score belongs at the place of its weight; these are sorted": (
                lambda w: lamp(w[w.abs().argsort()])
            ),
            "take the squares, above and below": lambda w: lamp(w.abs().sqrt()),
        },
    ),
    "07.4": Task(
        draw=shapes,
        kinds=["once", "again"],
        answer=densities,
        mistakes={
            "a density cannot exceed 1: leave that layer dense and share the rest again": uncapped,
            "what the dense layer cannot take must go to the others: the total is too small": (
                lambda sizes, keep: [min(d, 1.0) for d in uncapped(sizes, keep)]
            ),
            "share again: the rest has lifted another layer above 1": shared_once,
            "these are numbers of weights; fractions are asked": lambda sizes, keep: [
                d * math.prod(s) for d, s in zip(densities(sizes, keep), sizes, strict=True)
            ],
            "this is the uniform rule: every layer has the same density": (
                lambda sizes, keep: [keep / sum(map(math.prod, sizes))] * len(sizes)
            ),
        },
    ),
}
