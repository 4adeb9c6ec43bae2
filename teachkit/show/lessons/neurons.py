"""Lesson 12: what its explorers and figures draw, and its exercises."""

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from teachkit import neurons
from teachkit.core.types import Data
from teachkit.lab import sweep
from teachkit.lab.curves import interval
from teachkit.lab.evaluation import evaluate, predictions
from teachkit.lab.sweep import Row
from teachkit.show import plots, styles
from teachkit.show.exercises import Task, times, uniform
from teachkit.show.pictures import Picture

COLUMNS = 8


def units(model: nn.Module, data: Data, method: str, share: float) -> Picture:
    """The incoming weights of the first layer's units that stay, and the accuracy by digit.

    Args:
        model: a chain of Linear layers on square images.
        data: units are chosen on the training data, judged on the test data.
        method: one of ``neurons.METHODS``; with " + least squares" the next layers are refitted.
        share: the share of each hidden layer's units that goes.

    """
    way, dice = method.removesuffix(" + least squares"), torch.Generator().manual_seed(0)
    small = neurons.prune(model, data.train, share, way, repaired=way != method, generator=dice)
    whole, part = (_first(net) for net in (model, small))
    stays = (whole[:, None] == part).all(2).any(1)
    accuracy = evaluate(small, data.test).accuracy
    figure, (left, right) = plots.canvas(2, width=8.4, height=3.2)
    left.imshow(_tiles(whole, stays), cmap="gray", vmin=-1, vmax=1, interpolation="nearest")
    left.set(xticks=[], yticks=[], title=f"{int(stays.sum())} of {len(stays)} units stay")
    left.grid(False)
    left.spines[:].set_visible(True)
    by_digit = _by_class(small, data)
    at = range(len(by_digit))
    right.bar(at, by_digit, color="0.6", edgecolor="0.3")
    title = f"test accuracy {accuracy:.3f}"
    right.set(xlabel="digit", ylabel="accuracy", ylim=(0, 1), xticks=at, title=title)
    alt = (
        f"{method}, {share:.0%} of each hidden layer removed: the weights of the "
        f"{int(stays.sum())} first-layer units that stay as small images, and the accuracy by digit; "
        f"{title}."
    )
    return Picture(figure, alt)


def _first(model: nn.Module) -> Tensor:
    """The weights of the first hidden layer's units."""
    return model.get_parameter(f"{neurons.hidden(model)[0].name}.weight").detach()


def _tiles(weights: Tensor, stays: Tensor) -> np.ndarray:
    """Each unit's weights as an image, white where it is gone; grey is zero."""
    side, rows = round(weights.shape[1] ** 0.5), -(-len(weights) // COLUMNS)
    images = np.ones((rows * COLUMNS, side, side))
    bright = weights / weights.abs().amax(1, keepdim=True)
    images[: len(weights)][stays] = bright[stays].reshape(-1, side, side)
    return plots.tiles(images.reshape(rows, COLUMNS, side, side), border=1.0)


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
    means, bands, says = {}, {}, []
    for method in methods:
        part = sweep.select(rows, method=method, **chosen)
        shares = list(dict.fromkeys(row["share"] for row in part))
        accuracy = interval(sweep.column(part, "accuracy", by="share", over="seed"))
        means[method], bands[method] = accuracy.mean, (accuracy.low, accuracy.high)
        says.append(f"{method} {accuracy.mean[shares.index(0.75)]:.2f}")
    figure, (axes,) = plots.canvas(width=6.8, height=4.2)
    plots.draw(axes, shares, means, bands, marks=True, ms=5)
    alt = (
        "Test accuracy against the share of hidden units removed, by method, with 95 % intervals. "
        f"At 75 %: {', '.join(says)}."
    )
    labels = "share of each hidden layer removed", "test accuracy"
    return plots.finish(figure, alt, *labels, above=3, intervals=styles.SHADED, ylim=(0, 1))


def worth(exact: Mapping[str, ArrayLike], regression: neurons.Regression, masks: int) -> Picture:
    """The exact worth of each unit, and the one regressed on random masks with 95 % intervals.

    Args:
        exact: exact values (units,) by label; the units are ordered by the first.
        regression: what the masks say of each unit, with standard errors.
        masks: how many masks it used.

    """
    order = np.argsort(np.asarray(next(iter(exact.values())), float))[::-1]
    at = np.arange(len(order))
    figure, (axes,) = plots.canvas()
    for i, (label, look) in enumerate(styles.looks(exact).items()):
        shown = np.asarray(exact[label], float)[order]
        axes.plot(at + 0.15 * i, shown, label=label, ms=6, **look.point)
    mean, half = regression.worth.numpy()[order], 1.96 * regression.errors.numpy()[order]
    label = f"regression on {masks} masks"
    look = styles.look(label)
    axes.errorbar(at + 0.15 * len(exact), mean, half, capsize=3, label=label, **look.point)
    axes.axhline(0, color="0.4", linewidth=1)
    axes.set_xticks(at + 0.15, [str(j) for j in order])
    alt = (
        f"What each of {len(order)} units is worth, from unit {order[0]}, the most valuable, to unit "
        f"{order[-1]}: {', '.join(exact)}, and a regression on {masks} random masks with 95 % intervals."
    )
    labels = "unit, the most valuable first", "worth: fall of the loss"
    return plots.finish(figure, alt, *labels, above=3, intervals=styles.BARS)


def parallel(rng: random.Random, rising: bool) -> tuple[Tensor, int, int, float]:
    """Outgoing weights (out, units), the unit i that stays, j that goes, and the ratio a_j / a_i."""
    i, j = sorted(rng.sample(range(4), 2), reverse=not rising)
    return uniform(rng, -2, 2, 3, 4), i, j, rng.uniform(0.3, 3)


def merged(V: Tensor, i: int, j: int, ratio: float) -> Tensor:
    """Add ratio · v_j to v_i and leave column j out."""
    merged = V.index_add(1, torch.tensor([i]), ratio * V[:, [j]])
    return torch.cat([merged[:, :j], merged[:, j + 1 :]], 1)


def layer(rng: random.Random) -> tuple[Tensor, Tensor, Tensor]:
    """Activations (n, units), outgoing weights (out, units) and which units stay."""
    keep = torch.tensor([True, False, *(rng.random() < 0.6 for _ in range(3))])
    return uniform(rng, 0, 2, 12, 5), uniform(rng, -2, 2, 3, 5), keep


def refit(A: Tensor, V: Tensor, keep: Tensor) -> Tensor:
    """(out, kept): the units that stay say A Vᵀ as well as they can."""
    weights: Tensor = torch.linalg.lstsq(A[:, keep], A @ V.T).solution.T
    return weights


def outgoing(rng: random.Random) -> tuple[Tensor, Tensor]:
    """Outgoing weights (out, units) and H = AᵀA."""
    A, V, _ = layer(rng)
    return V, A.T @ A


def of_inverse(H: Tensor) -> Tensor:
    """The diagonal of H⁻¹."""
    return H.inverse().diagonal()


def played(rng: random.Random) -> tuple[Tensor, Tensor, int]:
    """All masks of four units (16, 4), a value for each, and a unit."""
    masks = (torch.arange(16)[:, None] >> torch.arange(3, -1, -1) & 1).bool()
    return masks, uniform(rng, -1, 1, 16), rng.randrange(4)


def banzhaf(masks: Tensor, values: Tensor, j: int) -> float:
    """Mean value with the unit minus mean value without it."""
    return float(values[masks[:, j]].mean() - values[~masks[:, j]].mean())


TASKS = {
    "12.1": Task(
        draw=parallel,
        kinds=[True, False],
        answer=merged,
        pure=True,
        mistakes={
            "unit j says ratio times what unit i says: multiply its weights by the ratio": (
                lambda V, i, j, ratio: merged(V, i, j, 1.0)
            ),
            "the ratio is upside down": lambda V, i, j, ratio: merged(V, i, j, 1 / ratio),
            "this deletes the unit: its weights must be added to those of unit i": (
                lambda V, i, j, ratio: merged(V, i, j, 0.0)
            ),
            "unit j goes and unit i stays": lambda V, i, j, ratio: merged(V, j, i, ratio),
            "add to what unit i has already": lambda V, i, j, ratio: merged(
                V.index_fill(1, torch.tensor([i]), 0.0), i, j, ratio
            ),
        },
    ),
    "12.2": Task(
        draw=layer,
        answer=refit,
        mistakes={
            "these are the old weights of the units that stay; refit them": lambda A, V, keep: V[
                :, keep
            ],
            "transpose: torch stores (outputs, units)": lambda A, V, keep: refit(A, V, keep).T,
            "the target is what all units said together, A Vᵀ": (
                lambda A, V, keep: refit(A, V * ~keep, keep)
            ),
            "the units that go have no weights; leave their columns out": (
                lambda A, V, keep: torch.zeros_like(V).masked_scatter(keep, refit(A, V, keep))
            ),
        },
    ),
    "12.3": Task(
        draw=outgoing,
        answer=lambda V, H: (V**2).sum(0) / of_inverse(H),
        mistakes={
            "divide by the diagonal of the inverse, not by the inverse of the diagonal": lambda V, H: (
                (V**2).sum(0) * H.diagonal()
            ),
            "this forgets the outgoing weights": lambda V, H: 1 / of_inverse(H),
            "square the length of the column": lambda V, H: V.norm(dim=0) / of_inverse(H),
            "each unit has its own outgoing weights, one column": lambda V, H: (
                (V**2).sum() / of_inverse(H)
            ),
            "this divides by the diagonal of H; invert H first": lambda V, H: (
                (V**2).sum(0) / H.diagonal()
            ),
            "it is upside down: divide by the diagonal of the inverse": lambda V, H: (
                (V**2).sum(0) * of_inverse(H)
            ),
        },
    ),
    "12.4": Task(
        draw=played,
        answer=banzhaf,
        mistakes={
            "this is leave-one-out: it compares two masks only": (
                lambda m, v, j: float(v[-1] - v[15 - 2 ** (3 - j)])
            ),
            "without minus with: the sign is the other way round": times(-1, banzhaf),
            "subtract the mean without the unit": lambda m, v, j: float(v[m[:, j]].mean()),
            "means, not sums": times(8, banzhaf),
            "unit j is column j of the masks, counted from the left": lambda m, v, j: banzhaf(
                m, v, 3 - j
            ),
        },
    ),
}
