"""Lesson 10: what its explorers and figures draw, and its exercises."""

import random
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from teachkit import sparse_training
from teachkit.core.types import Batch
from teachkit.lab.curves import interval
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row
from teachkit.show import plots, styles
from teachkit.show.exercises import Task, normal, uniform
from teachkit.show.pictures import Picture
from teachkit.show.prepared import Draw, Scene


def kink(weight: float, strength: float) -> Picture:
    """The cost of a value beside a weight, with |v| and with v², and where each is least, by weight."""
    w, t = torch.tensor(weight), strength
    v, W = torch.linspace(-2.5, 2.5, 501), torch.linspace(-2.5, 2.5, 201)
    costs = {"L1": 0.5 * (v - w) ** 2 + t * v.abs(), "L2": 0.5 * (v - w) ** 2 + 0.5 * t * v**2}
    least = {"L1": float(sparse_training.soft_threshold(w, t)), "L2": float(w / (1 + t))}
    figure, (left, right) = plots.canvas(2, width=8.4, height=3.4)
    plots.draw(left, v, costs)
    for label, at in least.items():
        height = costs[label][(v - at).abs().argmin()]
        left.plot([at], [height], markersize=8, **styles.look(label).point)
    moved = {"L1": sparse_training.soft_threshold(W, t), "L2": W / (1 + t)}
    plots.draw(right, W, moved)
    right.axvline(weight, **plots.THIN)
    right.axhline(0, **plots.THIN)
    right.set(xlabel="weight w", ylabel="v with the least cost")
    says = f"w = {weight:g} goes to {least['L1']:.2f} with |v|, to {least['L2']:.2f} with v²"
    alt = (
        f"Left: ½(v − {weight:g})² with the penalty {t:g}|v|, which has a kink at 0, and with "
        f"½ · {t:g} v². Right: where the cost is least, by weight; with |v| it is 0 from −{t:g} to "
        f"{t:g}. {says}."
    )
    return plots.finish(figure, alt, "value v", "cost", says=says, above=2, ylim=(0, 3))


def coin(log_alpha: float, beta: float) -> Picture:
    """The hard-concrete gate: its two atoms as bars, its density between, and the gate by the draw u."""
    at = torch.tensor(log_alpha)
    shut, full = (float(p) for p in sparse_training.atoms(at, beta))
    z, u = torch.linspace(0.002, 0.998, 400), torch.linspace(0.001, 0.999, 400)
    figure, (left, right) = plots.canvas(2, width=8.4, height=3.4)
    left.bar([0, 1], [shut, full], width=0.05, label="chance of exactly 0 and 1", **plots.BARS)
    plots.draw(left, z, {"density between 0 and 1": sparse_training.density(z, log_alpha, beta)})
    plots.draw(right, u, {"gate": sparse_training.gate(at, u, beta)})
    right.axhline(float(sparse_training.settled_gate(at)), **plots.THIN)
    right.set(xlabel="draw u, uniform", ylabel="gate z")
    settled = float(sparse_training.settled_gate(at))
    says = f"P(z = 0) = {shut:.2f}, P(z = 1) = {full:.2f}; settled gate {settled:.2f}"
    alt = (
        f"A gate with log α = {log_alpha:g} and temperature {beta:g}. Left: bars at 0 and 1, and the "
        f"density between them. Right: the gate as it grows with the uniform draw. {says}."
    )
    return plots.finish(figure, alt, "gate z", "density, or chance", says=says, ylim=(0, 2.5))


SIGMAS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0, 1.25, 1.5, 2.0)


@Scene
def dial(nets: Mapping[str, nn.Module], test: Batch, draws: int = 10) -> Draw:
    """Test accuracy with M ~ N(1, σ²) on every weight, for networks by depth; one is marked."""
    found = {name: [_noisy(net, test, s, draws) for s in SIGMAS] for name, net in nets.items()}

    def draw(layers: str, sigma: float) -> Picture:
        figure, (axes,) = plots.canvas()
        plots.draw(axes, SIGMAS, {f"depth {name}": a for name, a in found.items()})
        right = float(np.interp(sigma, SIGMAS, found[layers]))
        axes.plot([sigma], [right], "o", color="0.2", fillstyle="none", markersize=12)
        axes.axhline(0.1, **plots.THIN)
        says = f"{layers} hidden layers, σ = {sigma:g}: test accuracy {right:.2f}"
        alt = f"Test accuracy against the noise on every weight, a curve for each depth. {says}."
        labels = "noise σ", "test accuracy"
        return plots.finish(figure, alt, *labels, says=says, above=3, ylim=(0, 1))

    return draw


def _noisy(net: nn.Module, test: Batch, sigma: float, draws: int) -> float:
    dice = torch.Generator().manual_seed(0)
    each = [accuracy(sparse_training.perturbed(net, sigma, dice), test) for _ in range(draws)]
    return sum(each) / draws


def frontier(rows: Sequence[Row], methods: Sequence[str], weights: int) -> Picture:
    """Accuracy against sparsity, a point for each setting of a method: means over seeds, with intervals.

    Args:
        rows: a table with the columns method, level, seed, zeros and accuracy.
        methods: which to draw.
        weights: how many weights the network has.

    """
    figure, (axes,) = plots.canvas(width=6.8, height=4.2)
    says = []
    for label, look in styles.looks(methods).items():
        some = [row for row in rows if row["method"] == label]
        levels = [[r for r in some if r["level"] == n] for n in sorted({r["level"] for r in some})]
        at = np.array([np.mean([1 - r["zeros"] / weights for r in each]) for each in levels])
        right = interval(np.array([[r["accuracy"] for r in each] for each in levels]).T)
        bars = [right.mean - right.low, right.high - right.mean]
        axes.errorbar(at, right.mean, bars, label=label, marker=look.marker, capsize=2, **look.line)
        says.append(f"{label} {right.mean[-1]:.3f} with {at[-1]:.1%} left")
    axes.set_xscale("log")
    axes.invert_xaxis()
    alt = f"Test accuracy against the share of weights that is left, by method: {'; '.join(says)}."
    labels = "share of weights left", "test accuracy"
    return plots.finish(figure, alt, *labels, above=3, intervals=styles.BARS)


def by_kind(rows: Sequence[Row], column: str) -> dict[str, dict[int, float]]:
    """The mean accuracy of each kind of noise by depth or by width."""
    found: dict[str, dict[int, list[float]]] = {}
    for row in rows:
        found.setdefault(row["kind"], {}).setdefault(row[column], []).append(row["accuracy"])
    return {kind: {at: float(np.mean(a)) for at, a in by.items()} for kind, by in found.items()}


def drawn_gates(rng: random.Random) -> tuple[Tensor, Tensor, float]:
    """log α, uniform draws and a temperature: some gates shut, some open, some between."""
    u = torch.tensor([0.002, 0.998, 0.4, 0.5, 0.6, rng.uniform(0.1, 0.9)])
    return uniform(rng, -1, 1, 6), u, rng.choice([0.5, 2 / 3, 0.8])


def unclipped(log_alpha: Tensor, u: Tensor, beta: float) -> Tensor:
    """The gate before it is cut off at 0 and 1."""
    return 1.2 * torch.sigmoid((torch.logit(u) + log_alpha) / beta) - 0.1


def rows_of(rng: random.Random) -> tuple[Tensor, float]:
    """Weights of units, some of which go, and a threshold."""
    W, t = normal(rng, 4, 3), rng.uniform(0.4, 0.7)
    return W * torch.tensor([[0.1], [2.0], [0.2], [3.0]]), t


WITH = torch.tensor([-1.7, 1.9, 0.2])  # weights that go to each side of a threshold

TASKS = {
    "10.1": Task(
        draw=lambda rng: (torch.cat([normal(rng, 6), WITH]), rng.uniform(0.5, 1.2)),
        answer=sparse_training.soft_threshold,
        mistakes={
            "this is the hard threshold: what stays must move towards zero, too": lambda w, t: (
                torch.where(w.abs() > t, w, 0.0)
            ),
            "the sign is lost: a negative weight stays negative": lambda w, t: (w.abs() - t).clamp(
                min=0
            ),
            "nothing is zero yet: below the threshold the answer is 0": lambda w, t: (
                w - t * w.sign()
            ),
            "this is what w² does: it shrinks all and makes no zero": lambda w, t: w / (1 + t),
        },
    ),
    "10.2": Task(
        draw=drawn_gates,
        answer=sparse_training.gate,
        mistakes={
            "cut off at 0 and 1": unclipped,
            "stretch first, from (0, 1) to (−0.1, 1.1)": lambda a, u, beta: torch.sigmoid(
                (torch.logit(u) + a) / beta
            ),
            "divide by the temperature": lambda a, u, beta: sparse_training.gate(a, u, 1.0),
            "this is the gate without chance; u is missing": lambda a, u, beta: (
                sparse_training.settled_gate(a)
            ),
        },
    ),
    "10.3": Task(
        draw=rows_of,
        answer=lambda W, t: W * sparse_training.group_factor(W, t)[:, None],
        mistakes={
            "this makes single weights zero; a row goes as a whole": sparse_training.soft_threshold,
            "the root of the size of a group is missing": lambda W, t: (
                W * sparse_training.group_factor(W, t / 3**0.5)[:, None]
            ),
            "the units are the rows": lambda W, t: (
                (W.T * sparse_training.group_factor(W.T, t)[:, None]).T
            ),
        },
    ),
}
