"""The figures of the lesson on units: what stays of a network, methods compared, what a unit is worth."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import ArrayLike
from torch import Tensor, nn

from teachkit import neurons
from teachkit.core.types import Data
from teachkit.lab import sweep
from teachkit.lab.curves import interval
from teachkit.lab.evaluation import evaluate, predictions
from teachkit.lab.session import COLOURS, LINES
from teachkit.lab.sweep import Row
from teachkit.show import plots
from teachkit.show.pictures import Picture

MARKERS = "osv^DXP"
COLUMNS = 8


def units(model: nn.Module, data: Data, method: str, share: float) -> Picture:
    """The incoming weights of the first layer's units that stay, and the accuracy by digit.

    Args:
        model: a chain of Linear layers on square images.
        data: units are chosen on the training data, judged on the test data.
        method: one of ``neurons.METHODS``; with " + least squares" the next layers are refitted.
        share: the share of each hidden layer's units that goes.

    """
    way = method.removesuffix(" + least squares")
    dice = torch.Generator().manual_seed(0)
    repaired = way != method
    small = neurons.prune(model, data.train, share, way, repaired=repaired, generator=dice)
    whole, part = (_first(net) for net in (model, small))
    stays = (whole[:, None] == part).all(2).any(1)
    accuracy = evaluate(small, data.test).accuracy
    figure, (left, right) = plots.canvas(2, width=8.4, height=3.2)
    left.imshow(_tiles(whole, stays), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    left.set(xticks=[], yticks=[], title=f"{int(stays.sum())} of {len(stays)} units stay")
    left.grid(False)
    left.spines[:].set_visible(True)
    by_digit = _by_class(small, data)
    right.bar(np.arange(len(by_digit)), by_digit, color="0.6", edgecolor="0.3")
    right.set(xlabel="digit", ylabel="accuracy", ylim=(0, 1), xticks=range(len(by_digit)))
    right.set_title(f"test accuracy {accuracy:.3f}")
    alt = (
        f"{method}, {share:.0%} of each hidden layer removed: the weights of the "
        f"{int(stays.sum())} first-layer units that stay as small images, and the accuracy by digit; "
        f"test accuracy {accuracy:.3f}."
    )
    return Picture(figure, alt)


def _first(model: nn.Module) -> Tensor:
    """The weights of the first hidden layer's units."""
    return model.get_parameter(f"{neurons.hidden(model)[0].name}.weight").detach()


def _tiles(weights: Tensor, stays: Tensor) -> np.ndarray:
    """Each unit's weights as an image, white where it is gone; grey is zero."""
    side = round(weights.shape[1] ** 0.5)
    rows = -(-len(weights) // COLUMNS)
    canvas = np.ones((rows * (side + 1) + 1, COLUMNS * (side + 1) + 1))
    bright = (weights / weights.abs().amax(1, keepdim=True)).reshape(-1, side, side).numpy()
    for j in stays.nonzero()[:, 0].tolist():
        y, x = (1 + k * (side + 1) for k in divmod(j, COLUMNS))
        canvas[y : y + side, x : x + side] = bright[j]
    return canvas


def _by_class(model: nn.Module, data: Data) -> list[float]:
    """The share of each class's test samples that is classified correctly."""
    x, y = data.test
    with torch.no_grad():
        right = predictions(model(x)) == y
    return [float(right[y == k].double().mean()) for k in range(int(y.max()) + 1)]


def curves(rows: Sequence[Row], methods: Sequence[str], **chosen: Any) -> Picture:
    """Accuracy against the share of units removed, mean over seeds with its 95 % interval.

    Args:
        rows: a table with the columns method, seed, share and accuracy.
        methods: which to draw.
        chosen: other columns to select by, e.g. ``net="A"``.

    """
    figure, (axes,) = plots.canvas(width=6.8, height=4.2)
    says = []
    for i, method in enumerate(methods):
        part = sweep.select(rows, method=method, **chosen)
        shares = list(dict.fromkeys(row["share"] for row in part))
        found = interval(sweep.column(part, "accuracy", by="share", over="seed"))
        _band(axes, shares, found, label=method, i=i)
        says.append(f"{method} {found.mean[shares.index(0.75)]:.2f}")
    axes.set(xlabel="share of each hidden layer removed", ylabel="test accuracy", ylim=(0, 1))
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    alt = (
        "Test accuracy against the share of hidden units removed, by method, with 95 % intervals. "
        f"At 75 %: {', '.join(says)}."
    )
    return Picture(figure, alt)


def _band(axes: Axes, x: Sequence[float], found: Any, label: str, i: int) -> None:
    colour = COLOURS[i % len(COLOURS)]
    axes.plot(
        x,
        found.mean,
        label=label,
        color=colour,
        linestyle=LINES[i % len(LINES)],
        marker=MARKERS[i % len(MARKERS)],
        ms=5,
    )
    axes.fill_between(x, found.low, found.high, color=colour, alpha=0.2, linewidth=0)


def worth(exact: Mapping[str, ArrayLike], found: neurons.Regression, masks: int) -> Picture:
    """The exact worth of each unit, and the one regressed on random masks with 95 % intervals.

    Args:
        exact: exact values (units,) by label; the units are ordered by the first.
        found: a regression.
        masks: how many masks it used.

    """
    order = np.argsort(np.asarray(next(iter(exact.values())), float))[::-1]
    at = np.arange(len(order))
    figure, (axes,) = plots.canvas(width=6.4, height=3.6)
    for i, (label, values) in enumerate(exact.items()):
        shown = np.asarray(values, float)[order]
        axes.plot(at + 0.15 * i, shown, MARKERS[i], label=label, color=COLOURS[i], ms=6)
    mean, errors = found.worth.numpy()[order], found.errors.numpy()[order]
    axes.errorbar(
        at + 0.15 * len(exact),
        mean,
        1.96 * errors,
        fmt="_",
        color="0.25",
        capsize=3,
        label=f"regression on {masks} masks",
    )
    axes.axhline(0, color="0.4", linewidth=1)
    axes.set(xlabel="unit, the most valuable first", ylabel="worth: fall of the loss")
    axes.set_xticks(at + 0.15, [str(j) for j in order])
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    alt = (
        f"What each of {len(order)} units is worth, from unit {order[0]}, the most valuable, to unit "
        f"{order[-1]}: {', '.join(exact)}, and a regression on {masks} random masks with 95 % intervals."
    )
    return Picture(figure, alt)
