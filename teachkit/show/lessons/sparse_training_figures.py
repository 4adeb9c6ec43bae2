"""Lesson 10: its figures that stand still, drawn from networks and from saved tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from teachkit import masks, sparse_training
from teachkit.core.types import Masks
from teachkit.lab import sweep
from teachkit.lab.curves import Interval, interval
from teachkit.lab.sweep import Row
from teachkit.show import plots, styles
from teachkit.show.lessons.sparse_training import logarithmic
from teachkit.show.pictures import Picture

LIMITS = 1e-8, 3.0


def flat(model: nn.Module) -> Tensor:
    """The sizes of its prunable weights, the largest first."""
    weights = [w.detach().abs().reshape(-1) for w in masks.prunable(model).values()]
    return torch.cat(weights).sort(descending=True).values


def sizes(nets: Mapping[str, nn.Module]) -> Picture:
    """|w| from the largest to the smallest, for each network; a line ends where only zeros follow."""
    figure, (axes,) = plots.canvas(width=6.0, height=3.2)
    told = []
    for name, look in styles.looks(nets).items():
        w = flat(nets[name])
        w = w[w > 0]
        axes.plot(np.arange(1, len(w) + 1), w, label=name, **look.line)
        axes.plot([len(w)], [float(w[-1])], **look.point)
        told.append(f"{name}: {len(w)} are not zero, the smallest {float(w[-1]):.1g}")
    alt = f"Sizes of the weights in descending order, on a logarithmic axis. {'; '.join(told)}."
    labels = "rank of the weight", "|w|"
    return plots.finish(figure, alt, *labels, above=3, yscale="log", ylim=LIMITS)


def estimates(drawn: Mapping[str, Tensor], truth: float) -> Picture:
    """Single estimates of one slope, a row of dots for each estimator, with their mean and the truth."""
    figure, (axes,) = plots.canvas(width=6.4, height=2.6)
    dice, told = np.random.default_rng(0), []
    for place, (name, look) in enumerate(styles.looks(drawn).items()):
        some = drawn[name][:300].numpy()
        axes.plot(some, place + dice.uniform(-0.25, 0.25, len(some)), ".", color=look.colour, ms=3)
        mean = float(drawn[name].mean())
        axes.plot([mean], [place], "|", color="black", ms=22, mew=2)
        told.append(f"{name} mean {mean:.3f}, standard deviation {float(drawn[name].std()):.2f}")
    axes.axvline(truth, **plots.THIN)
    axes.set_yticks(range(len(drawn)), list(drawn))
    axes.set_ylim(len(drawn) - 0.4, -0.6)
    axes.grid(False, axis="y")
    plots.explain(
        figure, "Dots: single draws. Strokes: mean of all draws. Dotted: the exact slope."
    )
    alt = f"Estimates of a slope that is {truth:.3f}: {'; '.join(told)}."
    return plots.finish(figure, alt, "estimate from one draw", "")


def kept_state(states: list[Any]) -> Callable[[Any], tuple[nn.Module, Masks]]:
    """A way to settle a network that also keeps its weights and the logarithms of its variances."""

    def settle(net: Any) -> tuple[nn.Module, Masks]:
        states.append([{k: v.detach().clone() for k, v in each.items()} for each in net.both()])
        made: tuple[nn.Module, Masks] = net.bake()
        return made

    return settle


def certainty(state: Sequence[Mapping[str, Tensor]]) -> Picture:
    """The noise that each weight has learned beside its size; above the line it is noise alone."""
    theta, phi = state
    w = torch.cat([theta[name].reshape(-1) for name in phi]).abs()
    sigma = torch.cat([v.reshape(-1) for v in phi.values()]).div(2).exp()
    slope = np.exp(sparse_training.CUT / 2)
    removed = sigma / (w**2 + 1e-8).sqrt() > slope
    figure, (axes,) = plots.canvas(width=5.2, height=3.6)
    dice = torch.Generator().manual_seed(0)
    for name, which in (("stays", ~removed), ("goes", removed)):
        at = which.nonzero().reshape(-1)
        at = at[torch.randperm(len(at), generator=dice)[:300]]
        axes.plot(w[at], sigma[at], label=name, ms=3, **_plain(styles.look(name).point))
    ends = np.array([1e-4, 3.0])
    axes.plot(ends, slope * ends, color="0.3", linewidth=1)
    medians = f"{float(sigma[~removed].median()):.2f}", f"{float(sigma[removed].median()):.2f}"
    says = f"median noise: {medians[0]} of those that stay, {medians[1]} of those that go"
    above = f"{float(removed.double().mean()):.0%} of the weights lie above σ = {slope:.1f} |w|"
    alt = f"Learned noise σ against |w|, log on log; up to 300 of each kind. {above}; {says}."
    scale: dict[str, Any] = {"xscale": "log", "yscale": "log", "xlim": (1e-4, 3), "ylim": (3e-3, 3)}
    return plots.finish(figure, alt, "|w|", "learned noise σ", says=says, above=2, **scale)


def _plain(point: dict[str, Any]) -> dict[str, Any]:
    return point | {"markeredgewidth": 0, "alpha": 0.6}


def price() -> Picture:
    """What certainty costs: KL by log α, exact and approximated."""
    at = torch.linspace(-8, 8, 33)
    exact = [sparse_training.kl_exact(float(a)) for a in at]
    close = sparse_training.kl(at)
    largest = float((close - torch.tensor(exact)).abs().max())
    figure, (axes,) = plots.canvas(width=5.2, height=3.0)
    axes.plot(at, close, label="approximation", **styles.look("variational dropout").line)
    axes.plot(at, exact, ms=3, label="exact", **styles.look("exact").point)
    axes.axvline(sparse_training.CUT, **plots.THIN)
    says = f"largest difference {largest:.3f}; dotted: beyond it a weight is removed"
    alt = (
        f"KL by log α falls from {exact[0]:.1f} at −8 to {exact[-1]:.4f} at 8; the approximation's "
        f"{says}."
    )
    labels = "log α = log σ²/w²", "price of one weight"
    return plots.finish(figure, alt, *labels, says=says, above=2)


def pixels(kept: Mapping[str, Masks], side: int = 8) -> Picture:
    """How many weights each pixel has left, for each method."""
    figure, every = plots.canvas(len(kept), width=2.2 * len(kept), height=2.5)
    told = []
    for axes, (name, each) in zip(every, kept.items(), strict=True):
        counts = next(iter(each.values())).sum(0).reshape(side, side).numpy()
        axes.imshow(counts, cmap="gray_r", vmin=0, vmax=16, interpolation="nearest")
        dark = int((counts == 0).sum())
        zeros = f"{masks.sparsity(each):.0%} zeros"
        axes.set(title=f"{name}, {zeros}\n{dark} pixels unread", xticks=[], yticks=[])
        axes.title.set_fontsize(10)
        axes.grid(False)
        told.append(f"{name}, {zeros}, reads {side * side - dark} pixels of {side * side}")
    alt = f"Weights left at each pixel, black for 16 and more. {'; '.join(told)}."
    plots.explain(figure, "White: no weight left. Black: 16 or more.")
    return plots.finish(figure, alt, "", "")


def against(rows: Sequence[Row], budget: str, methods: Sequence[str]) -> Picture:
    """Accuracy less that of gradual magnitude with as many zeros, by the share of weights left."""
    figure, (axes,) = plots.canvas(width=6.0, height=3.2)
    told = []
    for name, look in styles.looks(methods).items():
        some = sweep.select(rows, method=name, budget=budget)
        left = 1 - np.array(sweep.column(some, "zeros", by="level", over="seed")).mean(0) / 6464
        parts = [
            sweep.column(some, each, by="level", over="seed") for each in ("accuracy", "gradual")
        ]
        less = interval(np.array(parts[0]) - np.array(parts[1]))
        bars = [less.mean - less.low, less.high - less.mean]
        axes.errorbar(left, less.mean, bars, label=name, marker=look.marker, capsize=2, **look.line)
        told += [f"{name} {m:+.3f} with {x:.1%} left" for m, x in zip(less.mean, left, strict=True)]
    axes.axhline(0, **plots.THIN)
    logarithmic(axes, (0.5, 0.2, 0.1, 0.05, 0.02))
    axes.set(xlim=(0.75, 0.017), ylim=(-0.26, 0.1))
    alt = f"Accuracy less that of gradual magnitude with as many zeros. {'; '.join(told)}."
    labels = "share of weights left", "accuracy less gradual magnitude's"
    return plots.finish(figure, alt, *labels, above=4, intervals=styles.BARS)


def relative(initial: float) -> float:
    """The spread of a gate in units of its mean, at the start of L0's training."""
    at = torch.tensor(np.log(initial / (1 - initial)))
    z = sparse_training.gate(at, (torch.arange(100_000) + 0.5) / 100_000)
    return float(z.std() / z.mean())


def size_of(kind: str) -> float:
    """The relative noise that a kind of training starts with."""
    if kind.startswith("noise"):
        return float(kind.split(",")[0].split()[1])
    return relative(0.5 if "half" in kind else 0.9)


def _by_power(rows: Sequence[Row], kinds: Sequence[str]) -> list[tuple[float, float]]:
    """The noise power at the start and the mean accuracy in the end, of each kind and depth."""
    points = []
    for kind in kinds:
        for depth in sorted({r["depth"] for r in rows}):
            some = [r["accuracy"] for r in sweep.select(rows, kind=kind, depth=depth)]
            power = sparse_training.noise_power(size_of(kind), depth + 1)
            points.append((power, float(np.mean(some))))
    return sorted(points)


def order(rows: Sequence[Row], kinds: Mapping[str, Sequence[str]]) -> float:
    """Spearman's rank correlation of the accuracy with the noise power, over all points.

    >>> rows = [{"kind": "noise 1", "depth": d, "accuracy": 1 / d} for d in (1, 2, 4)]
    >>> order(rows, {"one": ["noise 1"]})
    -1.0
    """
    points = np.array([p for some in kinds.values() for p in _by_power(rows, some)])
    ranks = (points[:, None] > points).sum(1) + (points[:, None] == points).sum(1) / 2
    return float(np.asarray(np.corrcoef(ranks.T))[0, 1].round(6))


def drowning(rows: Sequence[Row], kinds: Mapping[str, Sequence[str]]) -> Picture:
    """Test accuracy of every training with noise against one number, its noise power at the start."""
    figure, (axes,) = plots.canvas(width=6.4, height=3.6)
    told = []
    for label, look in styles.looks(kinds).items():
        points = _by_power(rows, kinds[label])
        axes.plot(*np.array(points).T, label=label, **look.point)
        told += [f"{label} {right:.2f} at {power:.2g}" for power, right in points if power < 200]
    axes.axhline(0.1, **plots.THIN)
    plots.explain(figure, "Dotted: guessing.")
    axes.set_xscale("log")
    axes.set_xlim(0.03, 1e3)
    alt = f"Test accuracy against the noise power (1 + σ²)^layers − 1. {'; '.join(told)}."
    return plots.finish(figure, alt, "noise power (1 + σ²)^layers − 1", "test accuracy", above=2)


def compressed(rows: Sequence[Row], weights: int = 266_200) -> list[dict[str, Any]]:
    """For each method and setting: the share of zeros, how many times fewer weights, and the accuracy."""
    found = []
    for name, level in dict.fromkeys((r["method"], r["level"]) for r in rows):
        some = sweep.select(rows, method=name, level=level)
        zeros = float(np.mean([r["zeros"] for r in some])) / weights
        right = interval([r["accuracy"] for r in some])
        times = 1 / (1 - zeros)
        found.append({"method": name, "zeros": zeros, "times fewer": times, "test accuracy": right})
    return found


def column(rows: Sequence[Row], by: str, name: str = "accuracy") -> dict[Any, Interval]:
    """The interval of a column over the seeds, for each value of another column, in order."""
    found: dict[Any, list[float]] = {}
    for row in rows:
        found.setdefault(row[by], []).append(row[name])
    return {at: interval(values) for at, values in found.items()}


def curves(rows: Sequence[Row], kinds: Sequence[str], by: str, xlabel: str) -> Picture:
    """Accuracy by depth or width, each step a doubling or more, a curve with its interval for each kind."""
    at = sorted({row[by] for row in rows})
    some = {k: sweep.select(rows, kind=k) for k in kinds}
    found = {k: interval(sweep.column(some[k], "accuracy", by=by, over="seed")) for k in kinds}
    told = "; ".join(f"{k} {', '.join(f'{m:.2f}' for m in each.mean)}" for k, each in found.items())
    alt = f"Test accuracy at {', '.join(map(str, at))} {xlabel}: {told}."
    return plots.lines(
        range(len(at)),
        found,
        alt=alt,
        xlabel=xlabel,
        ylabel="test accuracy",
        width=5.6,
        xticks=range(len(at)),
        xticklabels=at,
    )
