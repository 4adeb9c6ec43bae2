"""The figures of the lesson on the random-baseline paradox."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from teachkit import magnitude, masks, obd, paradox, taylor
from teachkit.core.types import Batch, Masks, Params, Scores
from teachkit.lab.evaluation import evaluate
from teachkit.lab.session import COLOURS, LINES
from teachkit.show import plots
from teachkit.show.pictures import Picture


def flat(found: Params) -> Tensor:
    """All entries of a dict as one vector."""
    return torch.cat([t.reshape(-1) for t in found.values()])


def arms(
    model: nn.Module, test: Batch, change: obd.Spread, spread_weight: float, sparsity: float
) -> Picture:
    """SD against MEAN of the predicted change; the weights that MEAN + λ SD removes are marked."""
    scores: Scores = {n: m + spread_weight * change.sd[n] for n, m in change.mean.items()}
    kept = masks.keep_top(scores, sparsity)
    accuracy = evaluate(masks.apply(model, kept), test).accuracy
    mean, sd, stay = (flat(found).numpy() for found in (change.mean, change.sd, kept))
    shown = sd > 1e-9  # weights from dead pixels change nothing and have no place on this axis
    figure, (axes,) = plots.canvas(width=5.8, height=4.2)
    for i, (label, part) in enumerate({"stays": stay & shown, "goes": ~stay & shown}.items()):
        axes.plot(
            mean[part], sd[part], "o^"[i], markersize=2.5, alpha=0.5, color=COLOURS[i],
            label=label, linestyle="none", rasterized=True,
        )  # fmt: skip
    axes.set_xscale("symlog", linthresh=1e-5)
    axes.set_yscale("log")
    axes.set(xlabel="mean of the predicted change", ylabel="its SD over the samples")
    axes.set_xticks([-1e-2, -1e-3, -1e-4, -1e-5, 0, 1e-5, 1e-4, 1e-3, 1e-2])
    axes.tick_params(axis="x", labelsize=8)
    says = (
        f"MEAN + {spread_weight:g} SD, {100 * sparsity:.0f} % removed: test accuracy {accuracy:.3f}"
    )
    axes.set_title(says, fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, markerscale=3)
    alt = f"Standard deviation against mean of the predicted change, a point a weight: a V. {says}."
    return Picture(figure, alt)


def along(model: nn.Module, batch: Batch, kept: Masks, reach: float) -> Picture:
    """The loss on the way from the network to the pruned one, up to a share of the way."""
    t = np.linspace(0, reach, 25).tolist()
    path = taylor.along(model, batch, masks.change(model, kept), t)
    figure, (axes,) = plots.canvas()
    curves = {"first order": path.first, "second order": path.second, "truth": path.actual}
    for i, (label, y) in enumerate(curves.items()):
        axes.plot(t, y, label=label, color=COLOURS[i], linestyle=LINES[i])
    axes.axhline(0, color="0.4", linewidth=1, linestyle=":")
    height = max(1e-4, 1.3 * float(path.actual.abs().max()))
    axes.set(
        xlabel="share α of the way to zero", ylabel="change of the loss", ylim=(-height, height)
    )
    axes.locator_params(axis="x", nbins=6)
    figure.legend(loc="outside upper center", ncols=3, frameon=False)
    best, low, end = int(path.actual.argmin()), float(path.actual.min()), float(path.actual[-1])
    says = f"lowest at α = {t[best]:.3f}, change {low:+.4f}; at the end {end:+.3f}"
    axes.set_title(says, fontsize=10)
    alt = f"Change of the loss along the way to the pruned network, up to {reach:g} of it: {says}."
    return Picture(figure, alt)


class Candidate(NamedTuple):
    """A network, its scores by T2, and a few random rankings."""

    model: nn.Module
    t2: Scores
    chance: list[Scores]


def candidate(
    model: nn.Module, batch: Batch, generator: torch.Generator, draws: int = 5
) -> Candidate:
    """Scores computed once, so that a slider need not wait for them."""
    chance = [magnitude.random_scores(model, generator) for _ in range(draws)]
    return Candidate(model, paradox.second_order(model, batch), chance)


def widths(nets: Mapping[str, Candidate], test: Batch, units: str, sparsity: float) -> Picture:
    """Test accuracy by T2 and by chance for every width; the chosen one is marked."""

    def after(model: nn.Module, scores: Scores) -> float:
        kept = masks.keep_top(scores, sparsity)
        return evaluate(masks.apply(model, kept), test).accuracy

    by_t2 = {name: after(c.model, c.t2) for name, c in nets.items()}
    by_chance = {
        name: sum(after(c.model, s) for s in c.chance) / len(c.chance) for name, c in nets.items()
    }
    figure, (axes,) = plots.canvas(height=3.2)
    for i, (label, found) in enumerate({"T2": by_t2, "random": by_chance}.items()):
        axes.plot(
            list(found),
            list(found.values()),
            color=COLOURS[i],
            linestyle=LINES[i],
            marker="o",
            label=label,
        )
        axes.plot([units], [found[units]], "o", color=COLOURS[i], markersize=12, fillstyle="none")
    axes.set(xlabel="units in the first hidden layer", ylabel="test accuracy", ylim=(0, 1))
    axes.legend(frameon=False, loc="lower left")
    both = f"T2 {by_t2[units]:.2f}, random {by_chance[units]:.2f}"
    says = f"{units} units, {100 * sparsity:.0f} % removed: {both}"
    axes.set_title(says, fontsize=10)
    return Picture(figure, f"Test accuracy after pruning by T2 and at random, by width. {says}.")
