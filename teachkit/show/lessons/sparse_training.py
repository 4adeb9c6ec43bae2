"""Lesson 10: what its explorers draw, its frontier, and its smaller networks."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from matplotlib.axes import Axes
from torch import nn

from teachkit import sparse_training
from teachkit.core.types import Batch
from teachkit.lab import sweep
from teachkit.lab.curves import interval
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row
from teachkit.show import plots, styles
from teachkit.show.lessons.sparse_training_tasks import TASKS as TASKS
from teachkit.show.lessons.sparse_training_tasks import TRIALS as TRIALS
from teachkit.show.pictures import Picture
from teachkit.show.prepared import Draw, Scene


def kink(weight: float, strength: float) -> Picture:
    """The cost of a value beside a weight, with |v| and with v², and where each is least, by weight."""
    w, t = torch.tensor(weight), strength
    v, W = torch.linspace(-2.5, 2.5, 501), torch.linspace(-2.5, 2.5, 201)
    costs = {"L1": 0.5 * (v - w) ** 2 + t * v.abs(), "L2": 0.5 * (v - w) ** 2 + 0.5 * t * v**2}
    least = {"L1": float(sparse_training.soft_threshold(w, t)), "L2": float(w / (1 + t))}
    figure, (left, right) = plots.canvas(2, width=7.6, height=3.0)
    plots.draw(left, v, costs)
    for label, at in least.items():
        height = costs[label][(v - at).abs().argmin()]
        left.plot([at], [height], markersize=8, **styles.look(label).point)
    moved = {"L1": sparse_training.soft_threshold(W, t), "L2": W / (1 + t)}
    plots.draw(right, W, moved)
    right.axvline(weight, **plots.THIN)
    right.axhline(0, **plots.THIN)
    right.legend([f"penalty {each}" for each in ("t |v|", "½ t v²")], frameon=False)
    right.set(xlabel="weight w", ylabel="v with the least cost")
    says = f"w = {weight:g} goes to {least['L1']:.2f} with |v|, to {least['L2']:.2f} with v²"
    alt = (
        f"Left: ½(v − {weight:g})² with the penalty {t:g}|v|, which has a kink at 0, and with "
        f"½ · {t:g} v². Right: where the cost is least, by weight; with |v| it is 0 from −{t:g} to "
        f"{t:g}. {says}."
    )
    return plots.finish(figure, alt, "value v", "cost", says=says, ylim=(0, 3))


def coin(log_alpha: float, beta: float) -> Picture:
    """The hard-concrete gate: its two atoms as bars, its density between, and the gate by the draw u."""
    at = torch.tensor(log_alpha)
    shut, full = (float(p) for p in sparse_training.atoms(at, beta))
    z, u = torch.linspace(0.002, 0.998, 400), torch.linspace(0.001, 0.999, 400)
    dense = sparse_training.density(z, log_alpha, beta)
    figure, (left, right) = plots.canvas(2, width=8.4, height=3.4)
    left.bar([0, 1], [shut, full], width=0.05, label="chance of exactly 0 and 1", **plots.BARS)
    plots.explain(
        figure, "Bars: the chances of exactly 0 and 1. Dotted: the gate when training ends."
    )
    plots.draw(left, z, {"density between 0 and 1": dense})
    plots.draw(right, u, {"gate": sparse_training.gate(at, u, beta)})
    right.axhline(float(sparse_training.settled_gate(at)), **plots.THIN)
    right.set(xlabel="draw u, uniform", ylabel="gate z")
    settled = float(sparse_training.settled_gate(at))
    says = f"P(z = 0) = {shut:.2f}, P(z = 1) = {full:.2f}; settled gate {settled:.2f}"
    alt = (
        f"A gate with log α = {log_alpha:g} and temperature {beta:g}. Left: bars at 0 and 1, and the "
        f"density between them. Right: the gate as it grows with the uniform draw. {says}."
    )
    top = max(1.2, 1.1 * float(dense.max()))
    return plots.finish(figure, alt, "gate z", "density, or chance", says=says, ylim=(0, top))


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
        plots.explain(figure, "Dotted: guessing.")
        says = f"{layers} hidden layers, σ = {sigma:g}: test accuracy {right:.2f}"
        alt = f"Test accuracy against the noise on every weight, a curve for each depth. {says}."
        labels = "noise σ", "test accuracy"
        return plots.finish(figure, alt, *labels, says=says, above=3, ylim=(0, 1))

    return draw


def _noisy(net: nn.Module, test: Batch, sigma: float, draws: int) -> float:
    dice = torch.Generator().manual_seed(0)
    each = [accuracy(sparse_training.perturbed(net, sigma, dice), test) for _ in range(draws)]
    return sum(each) / draws


def logarithmic(axes: Axes, shown: Sequence[float]) -> None:
    """An axis of shares, logarithmic, from many to few, with these marks."""
    axes.set_xscale("log")
    axes.invert_xaxis()
    axes.set_xticks(list(shown), [f"{share:.0%}" for share in shown])
    axes.minorticks_off()


def frontier(rows: Sequence[Row], methods: Sequence[str], weights: int) -> Picture:
    """Errors against sparsity, a point for each setting of a method: means over seeds, with intervals.

    Args:
        rows: a table with the columns method, level, seed, zeros and accuracy.
        methods: which to draw.
        weights: how many weights the network has.

    """
    figure, (axes,) = plots.canvas(width=6.4, height=3.0)
    says = []
    for label, look in styles.looks(methods).items():
        some = [row for row in rows if row["method"] == label]
        levels = [[r for r in some if r["level"] == n] for n in sorted({r["level"] for r in some})]
        at = np.array([np.mean([1 - r["zeros"] / weights for r in each]) for each in levels])
        wrong = interval(np.array([[1 - r["accuracy"] for r in each] for each in levels]).T)
        bars = [wrong.mean - wrong.low, wrong.high - wrong.mean]
        axes.errorbar(at, wrong.mean, bars, label=label, marker=look.marker, capsize=2, **look.line)
        says.append(f"{label} {wrong.mean[-1]:.3f} with {at[-1]:.1%} left")
    logarithmic(axes, (0.5, 0.2, 0.1, 0.05, 0.02))
    axes.set_yscale("log")
    axes.set_yticks([0.04, 0.06, 0.1, 0.2, 0.4], ["4%", "6%", "10%", "20%", "40%"])
    axes.yaxis.minorticks_off()
    alt = f"Test error against the share of weights that is left, by method: {'; '.join(says)}."
    labels = "share of weights left", "test error"
    return plots.finish(figure, alt, *labels, above=3, intervals=styles.BARS, ylim=(0.03, 0.5))


def smaller(rows: Sequence[Row]) -> Picture:
    """Accuracy against the parameters of the really smaller network."""
    figure, (axes,) = plots.canvas(width=6.0, height=3.4)
    told = []
    for name, look in styles.looks([r["method"] for r in rows]).items():
        some = sweep.select(rows, method=name)
        size = np.array(sweep.column(some, "parameters", by="level", over="seed")).mean(0)
        right = interval(sweep.column(some, "accuracy", by="level", over="seed"))
        bars = [right.mean - right.low, right.high - right.mean]
        axes.errorbar(
            size, right.mean, bars, label=name, marker=look.marker, capsize=2, **look.line
        )
        told.append(f"{name} {right.mean[-1]:.3f} with {size[-1]:.0f} parameters")
    axes.invert_xaxis()
    alt = (
        f"Test accuracy against the parameters left after whole units are gone: {'; '.join(told)}."
    )
    labels = "parameters of the smaller network", "test accuracy"
    return plots.finish(figure, alt, *labels, above=3, intervals=styles.BARS)


def on_mnist(tables: Mapping[str, tuple[Sequence[Row], int]]) -> Picture:
    """Accuracy less that of gradual magnitude with as many zeros, a line for each method and setting.

    Args:
        tables: by what they are, rows with the columns method, setting, seed, zeros, accuracy and gradual,
            and how many weights the network has.

    """
    figure, (axes,) = plots.canvas(width=6.0, height=3.5)
    lines: list[str] = []
    told: list[str] = []
    for label, look in styles.looks(tables).items():
        rows, weights = tables[label]
        for method, setting in dict.fromkeys((r["method"], r["setting"]) for r in rows):
            some = sweep.select(rows, method=method, setting=setting)
            less = interval([r["accuracy"] - r["gradual"] for r in some])
            bars = [[less.mean - less.low], [less.high - less.mean]]
            name = None if f"{label}," in " ".join(told) else label
            axes.errorbar(less.mean, len(lines), xerr=bars, label=name, capsize=2, **look.point)
            zeros = np.mean([r["zeros"] for r in some]) / weights
            lines.append(f"{method}, {zeros:.0%} zeros")
            told.append(f"{label}, {lines[-1]}: {less.mean:+.3f}")
    axes.axvline(0, **plots.THIN)
    axes.set_yticks(range(len(lines)), lines)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    alt = f"Accuracy less that of gradual magnitude with as many zeros. {'; '.join(told)}."
    labels = "accuracy less gradual magnitude's", ""
    return plots.finish(figure, alt, *labels, above=2, intervals=styles.BARS)
