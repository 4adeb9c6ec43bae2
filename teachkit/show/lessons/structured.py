"""Lesson 09: what its explorers and figures draw, and its exercises."""

import copy
import random
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import Tensor, nn

from teachkit import structured
from teachkit.core.types import Batch
from teachkit.lab.curves import interval
from teachkit.lab.evaluation import evaluate
from teachkit.show import plots, styles
from teachkit.show.exercises import Task, uniform
from teachkit.show.pictures import Picture

FILTERS, CHANNELS, SIDE = 6, 4, 3
BLOCK = (2, 6)
TOP = 22.0  # percentage points; what lies above is written at the edge


class Point(NamedTuple):
    """A mean over pruned networks: the share of the bytes saved, and the accuracy lost.

    ``low`` and ``high`` are the 95 % interval of the accuracy lost.
    """

    saved: float
    drop: float
    low: float
    high: float


def kernels(granularity: str, sparsity: float) -> Picture:
    """Which weights of a small convolution stay, kernel by kernel.

    Six filters (rows) read four channels (columns); each small square is a 3x3 kernel. The
    scores are fixed random numbers. "2:4" removes half, whatever the sparsity.
    """
    shape = (FILTERS, CHANNELS, SIDE, SIDE)
    scores = {"w": torch.rand(shape, generator=torch.Generator().manual_seed(3))}
    share = 0.5 if granularity == "2:4" else sparsity
    kept = structured.group_masks(scores, share, granularity, block=BLOCK, on_empty="allow")["w"]
    figure, (axes,) = plots.canvas(width=4.6, height=5.0)
    look: plots.Look = {"cmap": "gray", "vmin": 0, "vmax": 1, "interpolation": "nearest"}
    shade = torch.where(kept, 0.5 - 0.5 * scores["w"], 1.0)  # the larger the score the darker
    axes.imshow(plots.tiles(shade.numpy(), border=0.72), **look)
    axes.set_xticks(np.arange(CHANNELS) * (SIDE + 1) + 2, [f"{i}" for i in range(CHANNELS)])
    axes.set_yticks(np.arange(FILTERS) * (SIDE + 1) + 2, [f"{o}" for o in range(FILTERS)])
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    says = f"{int(kept.sum())} of {kept.numel()} weights stay"
    alt = (
        f"A convolution as {FILTERS} rows of {CHANNELS} kernels, pruned by {granularity} "
        f"({structured.GRANULARITIES[granularity]}) at sparsity {share:g}; dark squares stay, white "
        f"ones are gone: {says}."
    )
    labels = "input channel", "filter (output channel)"
    return plots.finish(figure, alt, *labels, says=f"{granularity}: {says}")


def tradeoff(
    before: Sequence[nn.Module], after: Sequence[nn.Module], batch: Batch, form: str = "dense"
) -> Point:
    """The means over two or more pairs of networks: bytes saved in a form, in float32, and loss."""
    saved, drop = [], []
    for dense, pruned in zip(before, after, strict=True):
        whole, part = (copy.deepcopy(net).float() for net in (dense, pruned))
        saved.append(1 - structured.stored(part, form) / structured.stored(whole))
        drop.append(evaluate(dense, batch).accuracy - evaluate(pruned, batch).accuracy)
    return Point(sum(saved) / len(saved), *map(float, interval(drop)))


def size_accuracy(points: Mapping[str, Sequence[Point]], bound: float) -> Picture:
    """Saved size against lost accuracy, in percent, with intervals and a bound on the loss.

    Args:
        points: by form, networks of rising sparsity.
        bound: the accuracy drop that one accepts, in percentage points.

    """
    figure, (axes,) = plots.canvas(height=4.0)
    axes.set(xlim=(-45, 101), ylim=(-2, TOP))
    says = []
    for i, (form, networks) in enumerate(points.items()):
        _curve(axes, form, networks)
        allowed = [p for p in networks if 100 * p.drop <= bound]
        best = max(allowed, key=lambda p: p.saved, default=None)
        if best:
            at, size = (100 * best.saved, 100 * best.drop), 10 + 4 * i  # so no ring hides another
            axes.plot(*at, "o", ms=size, mfc="none", color=styles.look(form).colour)
        says.append(f"{form} {100 * best.saved if best else 0:.0f} %")
    axes.axhline(bound, color="0.3", linewidth=1, linestyle=":")
    axes.text(-42, bound + 0.2, f"bound {bound:g}", va="bottom", fontsize=9)
    alt = (
        "Saved size against accuracy drop by form of storage. Within a drop of "
        f"{bound:g} points the most that each saves: {', '.join(says)}."
    )
    labels = "saved size in %", "accuracy drop in points"
    return plots.finish(figure, alt, *labels, above=4, intervals=styles.BARS)


def _curve(axes: Axes, form: str, networks: Sequence[Point]) -> None:
    saved, drop, low, high = 100 * np.transpose(networks)
    style = styles.look(form)
    look = style.line | {"marker": style.marker}
    bars = [drop - low, high - drop]
    axes.errorbar(saved, drop, bars, label=form, ms=5, elinewidth=1, capsize=2, **look)
    for x, y in zip(saved, drop, strict=True):
        if y > TOP:
            words: plots.Look = {"ha": "center", "va": "top", "fontsize": 9}
            axes.text(x + 2, TOP, f"{form} {y:.0f} ↑", color=style.colour, **words)


def channels(rng: random.Random) -> tuple[Tensor, int]:
    """Which channels stay, and how many places each has after a flatten."""
    keep = torch.tensor([True, False, *(rng.random() < 0.5 for _ in range(3))])
    return keep, rng.choice([4, 9])


def sparse(rng: random.Random, value: int) -> tuple[Tensor, int]:
    """A mask (outputs, inputs) and the bytes of one number."""
    mask = uniform(rng, 0, 1, 5, 7) < 0.4
    mask[0, 0] = True
    return mask, value


def csr_bytes(mask: Tensor, value: int) -> int:
    """A value and a column of 4 bytes for each weight, 4 bytes for each row, and 4 more."""
    return int(mask.sum()) * (value + 4) + 4 * (len(mask) + 1)


def constant(rng: random.Random, last: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The next layer's weight (outputs, units) and bias, and which units stay."""
    keep = torch.tensor([True, True, False, False, last])
    return uniform(rng, -2, 2, 3, 5), uniform(rng, -1, 1, 3), keep


TASKS = {
    "09.1": Task(
        draw=lambda rng: (uniform(rng, -2, 2, 4, 4),),
        answer=lambda W: W.norm(dim=1),
        mistakes={
            "these are the norms of the columns: torch stores (outputs, inputs)": (
                lambda W: W.norm(dim=0)
            ),
            "this is the L1 norm, Σ|w|; the root of Σ w² is asked for": lambda W: W.abs().sum(1),
            "take the square root": lambda W: (W**2).sum(1),
            "add up the squares, do not average them": lambda W: (W**2).mean(1).sqrt(),
        },
    ),
    "09.2": Task(
        draw=channels,
        answer=lambda keep, places: keep.repeat_interleave(places),
        mistakes={
            "the places of one channel are neighbours: repeat each entry, not the whole row": (
                lambda keep, places: keep.repeat(places)
            ),
            "the mask is inverted: True keeps": (
                lambda keep, places: ~keep.repeat_interleave(places)
            ),
        },
    ),
    "09.3": Task(
        draw=sparse,
        kinds=[2, 4, 8],
        answer=csr_bytes,
        mistakes={
            "every number needs its column, 4 bytes": lambda m, v: int(m.sum()) * v,
            "where each row begins is stored, too": lambda m, v: int(m.sum()) * (v + 4),
            "the row pointers are one more than the rows: the last says where the data ends": (
                lambda m, v: int(m.sum()) * (v + 4) + 4 * len(m)
            ),
            "these are the bytes of the zeros: True keeps": lambda m, v: csr_bytes(~m, v),
            "a column takes 4 bytes, whatever the number takes": lambda m, v: (
                int(m.sum()) * 2 * v + 4 * (len(m) + 1)
            ),
            "a pointer for each row, not for each column": lambda m, v: csr_bytes(m.T, v),
            "these are the bytes of the dense matrix": lambda m, v: m.numel() * v,
        },
    ),
    "09.4": Task(
        draw=constant,
        kinds=[True, False],
        answer=lambda V, b, keep: b + 0.5 * V[:, ~keep].sum(1),
        mistakes={
            "sigmoid(0) is ½": lambda V, b, keep: b + V[:, ~keep].sum(1),
            "these are the units that stay; the others are gone": (
                lambda V, b, keep: b + 0.5 * V[:, keep].sum(1)
            ),
            "the constant must be added, so that nothing changes": (
                lambda V, b, keep: b - 0.5 * V[:, ~keep].sum(1)
            ),
            "this is what must be added to the bias; return the new bias": (
                lambda V, b, keep: 0.5 * V[:, ~keep].sum(1)
            ),
            "only the units that are gone say a constant": lambda V, b, keep: b + 0.5 * V.sum(1),
            "each unit adds its own part: a sum, not a mean": lambda V, b, keep: (
                b + 0.5 * V[:, ~keep].mean(1)
            ),
        },
    ),
}
