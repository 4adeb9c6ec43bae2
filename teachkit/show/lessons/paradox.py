"""Lesson 11: what its explorers and figures draw, and its exercises."""

import random
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.func import functional_call

from teachkit import magnitude, masks, paradox, taylor
from teachkit.core.types import Batch, Masks, Params, Scores
from teachkit.lab.curves import interval
from teachkit.lab.evaluation import evaluate
from teachkit.lab.sweep import Row
from teachkit.show import plots, styles
from teachkit.show.exercises import Task, normal, times
from teachkit.show.pictures import Picture
from teachkit.show.prepared import Draw, Scene


def flat(params: Params) -> Tensor:
    """All entries of a dict as one vector."""
    return torch.cat([t.reshape(-1) for t in params.values()])


def arms(
    model: nn.Module, test: Batch, change: paradox.Spread, spread_weight: float, sparsity: float
) -> Picture:
    """SD against MEAN of the predicted change; the weights that MEAN + λ SD removes are marked."""
    scores: Scores = {n: m + spread_weight * change.sd[n] for n, m in change.mean.items()}
    kept = masks.keep_top(scores, sparsity)
    accuracy = evaluate(masks.apply(model, kept), test).accuracy
    mean, sd, stay = (flat(part).numpy() for part in (change.mean, change.sd, kept))
    shown = sd > 1e-9  # weights from dead pixels change nothing and have no place on this axis
    figure, (axes,) = plots.canvas(width=5.8, height=4.2)
    small: plots.Look = {"markersize": 2.5, "alpha": 0.5, "rasterized": True}
    for label, part in {"stays": stay & shown, "goes": ~stay & shown}.items():
        axes.plot(mean[part], sd[part], label=label, **styles.look(label).point, **small)
    axes.set_xscale("symlog", linthresh=1e-5)
    axes.set_yscale("log")
    axes.set_xticks([-1e-2, -1e-3, -1e-4, -1e-5, 0, 1e-5, 1e-4, 1e-3, 1e-2])
    axes.minorticks_off()
    axes.tick_params(axis="x", labelsize=8)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, markerscale=3)
    removed = f"{100 * sparsity:.0f} % removed: test accuracy {accuracy:.3f}"
    says = f"MEAN + {spread_weight:g} SD, {removed}"
    alt = f"Standard deviation against mean of the predicted change, a point a weight: a V. {says}."
    labels = "mean of the predicted change", "its SD over the samples"
    return plots.finish(figure, alt, *labels, says=says)


STEPS = (np.arange(126) / 125) ** 2  # close together at the start of the way


@Scene
def along(model: nn.Module, batch: Batch, kept: Masks) -> Draw:
    """The loss on the way from the network to the pruned one, up to a share of the way (``reach``)."""
    way = taylor.along(model, batch, masks.change(model, kept), STEPS.tolist())
    curves = {"first order": way.first, "second order": way.second, "truth": way.actual}

    def draw(reach: float) -> Picture:
        t = np.append(STEPS[reach > STEPS], reach)
        shown = {label: np.interp(t, STEPS, curve) for label, curve in curves.items()}
        figure, (axes,) = plots.canvas()
        plots.draw(axes, t, shown)
        axes.axhline(0, **plots.THIN)
        axes.locator_params(axis="x", nbins=6)
        truth = shown["truth"]
        height = max(1e-4, 1.3 * float(np.abs(truth).max()))
        best, low, end = t[truth.argmin()], truth.min(), truth[-1]
        says = f"lowest at α = {best:.3f}, change {low:+.4f}; at the end {end:+.3f}"
        alt = f"Change of the loss along the way to the pruned network, up to {reach:g} of it: {says}."
        labels = "share α of the way to zero", "change of the loss"
        return plots.finish(figure, alt, *labels, says=says, above=3, ylim=(-height, height))

    return draw


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


@torch.no_grad()
def after(model: nn.Module, scores: Scores, sparsity: float, test: Batch) -> float:
    """Test accuracy without the weights of the lowest scores; no copy of the network is made."""
    kept = masks.keep_top(scores, sparsity)
    weights = {name: model.get_parameter(name) * mask for name, mask in kept.items()}
    said = functional_call(model, weights, test[0]).argmax(1)
    return float((said == test[1]).double().mean())


@Scene
def widths(nets: Mapping[str, Candidate], test: Batch) -> Draw:
    """Test accuracy by T2 and by chance for every width; the chosen one (``units``) is marked."""

    @cache
    def accuracies(sparsity: float) -> dict[str, dict[str, float]]:
        by_t2 = {name: after(c.model, c.t2, sparsity, test) for name, c in nets.items()}
        by_chance = {
            name: sum(after(c.model, s, sparsity, test) for s in c.chance) / len(c.chance)
            for name, c in nets.items()
        }
        return {"T2": by_t2, "random": by_chance}

    def draw(units: str, sparsity: float) -> Picture:
        figure, (axes,) = plots.canvas(height=3.2)
        found = accuracies(sparsity)
        plots.draw(axes, list(nets), {n: list(a.values()) for n, a in found.items()}, marks=True)
        for label, accuracy in found.items():
            ring: plots.Look = {"color": styles.look(label).colour, "markersize": 12}
            axes.plot([units], [accuracy[units]], "o", fillstyle="none", **ring)
        both = ", ".join(f"{label} {a[units]:.2f}" for label, a in found.items())
        says = f"{units} units, {100 * sparsity:.0f} % removed: {both}"
        alt = f"Test accuracy after pruning by T2 and at random, by width. {says}."
        labels = "units in the first hidden layer", "test accuracy"
        return plots.finish(figure, alt, *labels, says=says, above=2, ylim=(0, 1))

    return draw


def arms_of(rows: Sequence[Row], *criteria: str) -> list[dict[str, Any]]:
    """The mean accuracy of each criterion over a saved table, with its interval."""
    return [{"criterion": c, "accuracy": interval([row[c] for row in rows])} for c in criteria]


def estimates(rows: Sequence[Row], criteria: Sequence[str]) -> list[dict[str, Any]]:
    """The mean accuracy of each criterion by network and by the samples that it was estimated on."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(f"{row['net']}, {row['samples']}", []).append(row)
    return [
        {"estimated on": name} | {c: interval([row[c] for row in some]).mean for c in criteria}
        for name, some in groups.items()
    ]


def quadratic(rng: random.Random) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient, Hessian, weights and which of them go."""
    g, w = normal(rng, 2, 4)
    A = normal(rng, 4, 4)
    gone = rng.choice([[True, True, False, True], [False, True, True, False]])
    return g, A + A.T, w, torch.tensor(gone)


def joint(g: Tensor, H: Tensor, w: Tensor, gone: Tensor) -> Tensor:
    """The prediction of the quadratic model for removing all of them."""
    step = torch.where(gone, -w, 0.0)
    return g @ step + 0.5 * step @ H @ step


def single(g: Tensor, H: Tensor, w: Tensor, gone: Tensor) -> Tensor:
    """The sum of the predictions for each alone."""
    return (-g * w + 0.5 * H.diagonal() * w**2)[gone].sum()


def cross(g: Tensor, H: Tensor, w: Tensor, gone: Tensor) -> Tensor:
    """What the sum leaves out."""
    return joint(g, H, w, gone) - single(g, H, w, gone)


def ratio(c: Tensor) -> Tensor:
    """SD of the sum, in units of the SD of a sum of independent ones."""
    return c.sum(1).std(correction=0) / c.var(0, correction=0).sum().sqrt()


TASKS = {
    "11.1": Task(
        draw=quadratic,
        answer=single,
        mistakes={
            "this is the joint prediction; the promise leaves the cross terms out": joint,
            "the gradient's term has the wrong sign: the step to zero is −w": (
                lambda g, H, w, gone: single(-g, H, w, gone)
            ),
            "sum over the weights that go, not over those that stay": lambda g, H, w, gone: single(
                g, H, w, ~gone
            ),
            "the factor ½ is missing": lambda g, H, w, gone: single(g, 2 * H, w, gone),
            "this is the first order only; the curvature is missing": lambda g, H, w, gone: single(
                g, 0 * H, w, gone
            ),
            "this is the saliency of OBD; the gradient is missing": lambda g, H, w, gone: single(
                0 * g, H, w, gone
            ),
            "these are the row sums of H; take its diagonal": lambda g, H, w, gone: single(
                g, torch.diag(H.sum(1)), w, gone
            ),
        },
    ),
    "11.2": Task(
        draw=quadratic,
        answer=cross,
        mistakes={
            "this is the whole joint prediction; take the promise off": joint,
            "the sign is turned round: joint less promised": times(-1, cross),
            "of the weights that go, not of those that stay": lambda g, H, w, gone: cross(
                g, H, w, ~gone
            ),
            "this is the promise; the cross terms are what it leaves out": single,
        },
    ),
    "11.3": Task(
        draw=lambda rng: (normal(rng, 6, 1) + 0.5 * normal(rng, 6, 3),),
        answer=ratio,
        mistakes={
            "divide by the root of the sum of the variances": lambda c: c.sum(1).std(correction=0),
            "variances add, standard deviations do not: divide by the root of the summed variances": (
                lambda c: c.sum(1).std(correction=0) / c.std(0, correction=0).sum()
            ),
            "take the root of both: these are variances": lambda c: (
                c.sum(1).var(correction=0) / c.var(0, correction=0).sum()
            ),
            "add up over the weights, then take the spread over the samples": lambda c: ratio(c.T),
            "divide by n in each variance, the sum's, too (correction=0)": lambda c: (
                c.sum(1).std() / c.var(0, correction=0).sum().sqrt()
            ),
            "the change is a sum over the weights, not a mean": lambda c: ratio(c) / c.shape[1],
        },
    ),
    "11.4": Task(
        draw=lambda rng: (normal(rng, 8, 5), rng.choice([0.5, 2.0])),
        answer=lambda c, weight: c.mean(0) + weight * c.std(0, correction=0),
        mistakes={
            "this is the mean alone; add λ times the spread": lambda c, weight: c.mean(0),
            "use the standard deviation, not the variance": lambda c, weight: (
                c.mean(0) + weight * c.var(0, correction=0)
            ),
            "divide by n, not by n − 1 (correction=0)": lambda c, weight: (
                c.mean(0) + weight * c.std(0)
            ),
            "mean and spread are taken over the samples, the first axis": lambda c, weight: (
                c.mean(1) + weight * c.std(1, correction=0)
            ),
            "the spread is added, so that a noisy weight stays": lambda c, weight: (
                c.mean(0) - weight * c.std(0, correction=0)
            ),
            "the spread of the samples is asked, not the error of their mean": lambda c, weight: (
                c.mean(0) + weight * c.std(0, correction=0) / len(c) ** 0.5
            ),
        },
    ),
}
