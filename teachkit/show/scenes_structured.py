"""The figures of the lesson on structures: kernels by granularity, and size against accuracy."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor, nn

from teachkit import structured
from teachkit.core.types import Batch
from teachkit.lab.curves import interval
from teachkit.lab.evaluation import evaluate
from teachkit.lab.session import COLOURS, LINES
from teachkit.show import plots
from teachkit.show.pictures import Picture

FILTERS, CHANNELS, SIDE = 6, 4, 3
BLOCK = (2, 6)
MARKERS = "osv^DX"
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
    axes.imshow(_tiles(kept, scores["w"]), cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    step = SIDE + 1
    axes.set_xticks(np.arange(CHANNELS) * step + 2, [f"{i}" for i in range(CHANNELS)])
    axes.set_yticks(np.arange(FILTERS) * step + 2, [f"{o}" for o in range(FILTERS)])
    axes.set(xlabel="input channel", ylabel="filter (output channel)")
    axes.grid(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    says = f"{int(kept.sum())} of {kept.numel()} weights stay"
    axes.set_title(f"{granularity}: {says}", fontsize=10)
    what = structured.GRANULARITIES[granularity]
    alt = (
        f"A convolution as {FILTERS} rows of {CHANNELS} kernels, pruned by {granularity} ({what}) "
        f"at sparsity {share:g}; dark squares stay, white ones are gone: {says}."
    )
    return Picture(figure, alt)


def _tiles(kept: Tensor, scores: Tensor) -> np.ndarray:
    """Kernels as tiles with a grey line between them; the larger the score the darker."""
    step = SIDE + 1
    canvas = np.full((FILTERS * step + 1, CHANNELS * step + 1), 0.72)
    shade = torch.where(kept, 0.5 - 0.5 * scores, 1.0).numpy()
    for o in range(FILTERS):
        for i in range(CHANNELS):
            y, x = 1 + o * step, 1 + i * step
            canvas[y : y + SIDE, x : x + SIDE] = shade[o, i]
    return canvas


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
    figure, (axes,) = plots.canvas(width=6.4, height=4.0)
    axes.set(xlabel="saved size in %", ylabel="accuracy drop in points", ylim=(-2, TOP))
    axes.set_xlim(-45, 101)
    best = {}
    for i, (form, networks) in enumerate(points.items()):
        _curve(axes, form, networks, i)
        allowed = [p for p in networks if 100 * p.drop <= bound]
        best[form] = max((p.saved for p in allowed), default=0.0)
        if allowed:
            at = max(allowed, key=lambda p: p.saved)
            size = 10 + 4 * i  # so that no ring hides another
            axes.plot(100 * at.saved, 100 * at.drop, "o", ms=size, mfc="none", color=COLOURS[i])
    axes.axhline(bound, color="0.3", linewidth=1, linestyle=":")
    axes.text(-42, bound + 0.2, f"bound {bound:g}", va="bottom", fontsize=9)
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    says = ", ".join(f"{form} {100 * saved:.0f} %" for form, saved in best.items())
    alt = (
        "Saved size against accuracy drop by form of storage. Within a drop of "
        f"{bound:g} points the most that each saves: {says}."
    )
    return Picture(figure, alt)


def _curve(axes: Axes, form: str, networks: Sequence[Point], i: int) -> None:
    saved: ArrayLike = [100 * p.saved for p in networks]
    drop: ArrayLike = [100 * p.drop for p in networks]
    bars = np.transpose([[p.drop - p.low, p.high - p.drop] for p in networks])
    line: dict[str, Any] = {
        "color": COLOURS[i],
        "linestyle": LINES[i],
        "marker": MARKERS[i],
        "ms": 5,
    }
    axes.errorbar(saved, drop, yerr=100 * bars, label=form, elinewidth=1, capsize=2, **line)
    for p in networks:
        if 100 * p.drop > TOP:
            words: dict[str, Any] = {
                "ha": "center",
                "va": "top",
                "fontsize": 9,
                "color": COLOURS[i],
            }
            axes.text(100 * p.saved + 2, TOP, f"{form} {100 * p.drop:.0f} ↑", **words)
