"""Lesson 13: its figures of teaching, of orders and of the smallest file, from saved tables."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachkit import compression
from teachkit.lab import sweep
from teachkit.lab.curves import Interval, interval
from teachkit.lab.sweep import Row
from teachkit.show import plots, styles
from teachkit.show.lessons.compression_figures import by_seed
from teachkit.show.pictures import Picture

TAUGHT = ["labels", "teacher, T = 1", "teacher, T = 4", "teacher, T = 16"]
OTHERS = {
    "teacher, T = 4": "new, taught",
    "units, labels": "pruned, labels",
    "units, teacher": "pruned, taught",
}
ORDERS = ["P-Q", "PDQ", "PQD", "DPQ", "QPD", "DQP", "QDP"]


def limit(z: Tensor, teacher: Tensor) -> Picture:
    """T² times the slope of the soft loss at each class, by temperature, and what it tends to."""
    at = np.geomspace(0.5, 100, 60)
    slopes = torch.stack([t**2 * compression.soft_gradient(z, teacher, t)[0] for t in at.tolist()])
    ends = compression.matched_gradient(z, teacher, 1.0)[0].tolist()
    figure, (axes,) = plots.canvas(width=5.6, height=3.0)
    for i, look in enumerate(styles.looks([f"class {i}" for i in range(len(ends))]).values()):
        axes.plot(at, slopes[:, i], label=f"class {i}", **look.line)
        axes.axhline(ends[i], color=look.colour, linewidth=1, linestyle=":")
    told = ", ".join(f"{end:.2f}" for end in ends)
    alt = f"T² times the slope by temperature: three curves that level off at {told}, the dotted lines."
    scale: dict[str, Any] = {"xscale": "log", "xticks": [1, 10, 100], "xticklabels": [1, 10, 100]}
    return plots.finish(
        figure, alt, "temperature T", "T² · slope", above=3, ylim=(-1.4, 1.6), **scale
    )


def curves(rows: Sequence[Row], by: str, ways: Sequence[str], xlabel: str) -> Picture:
    """Test accuracy of students by epochs or by images, a curve for each way."""
    at = list(dict.fromkeys(row[by] for row in rows))
    found = {way: by_seed(sweep.select(rows, way=way), "accuracy", by) for way in ways}
    told = "; ".join(f"{k} {', '.join(f'{m:.3f}' for m in v.mean)}" for k, v in found.items())
    alt = f"Test accuracy at {', '.join(map(str, at))} {xlabel}: {told}."
    axis: dict[str, Any] = {"xticks": range(len(at)), "xticklabels": at}
    return plots.lines(
        range(len(at)), found, alt=alt, xlabel=xlabel, ylabel="test accuracy", width=5.6, **axis
    )


def less(rows: Sequence[Row], way: str, other: str) -> Interval:
    """Accuracy of one way less that of another, a pair for each seed."""
    mine, theirs = ([r["accuracy"] for r in sweep.select(rows, way=w)] for w in (way, other))
    return interval(np.array(mine) - np.array(theirs))


def starts(found: Mapping[str, Sequence[Row]]) -> Picture:
    """Accuracy of students less that of a new one with labels, by data set, pairs of the same seed."""
    gains = {d: [less(rows, way, "labels") for way in OTHERS] for d, rows in found.items()}
    arms = {d: Interval(*map(np.array, zip(*each, strict=True))) for d, each in gains.items()}
    told = "; ".join(
        f"{d} {', '.join(f'{m:+.3f} ({a:+.3f} to {b:+.3f})' for m, a, b in each)}"
        for d, each in gains.items()
    )
    alt = f"Test accuracy less that of new students with labels, for {', '.join(OTHERS.values())}: {told}."
    gaps = {d: less(rows, "units, teacher", "units, labels") for d, rows in found.items()}
    said = ", ".join(f"{d} {m:+.3f} ({a:+.3f} to {b:+.3f})" for d, (m, a, b) in gaps.items())
    alt += f" Pruned and taught less pruned with labels: {said}."
    labels = {"xlabel": "student", "ylabel": "accuracy gained", "width": 5.6}
    return plots.differences(list(OTHERS.values()), arms, alt=alt, **labels)


def ranks(rows: Sequence[Row]) -> Picture:
    """Test accuracy of networks pruned by a criterion: at once, and after training on labels."""
    stages = ["before", "labels, 3", "labels, 20"]
    figure, (axes,) = plots.canvas(width=6.0, height=3.2)
    told = []
    names = list(dict.fromkeys(row["criterion"] for row in rows))
    for name, look in styles.looks(names).items():
        some = sweep.select(rows, criterion=name)
        means, low, high = interval(np.array([[row[stage] for stage in stages] for row in some]))
        bars = [means - low, high - means]
        axes.errorbar(range(3), means, bars, label=name, marker=look.marker, capsize=2, **look.line)
        ends = f"{low[-1]:.2f} to {high[-1]:.2f}"
        told.append(f"{name} {', '.join(f'{m:.2f}' for m in means)} ({ends})")
    axes.set_xticks(range(3), ["right after\npruning", "3 epochs", "20 epochs"])
    alt = f"Mean test accuracy right after pruning, after 3 and after 20 epochs: {'; '.join(told)}."
    more: dict[str, Any] = {"intervals": styles.BARS, "ylim": (0, 1)}
    return plots.finish(figure, alt, "", "test accuracy", above=3, **more)


def orders(rows: Sequence[Row]) -> Picture:
    """Test accuracy by the order of pruning, distilling and sharing values, at both levels."""
    found, told = {}, []
    for level, name in (("mild", "80 % zeros, 3 bits"), ("hard", "90 % zeros, 2 bits")):
        some = [row for row in sweep.select(rows, level=level) if row["order"] in ORDERS]
        each = [sweep.select(some, order=order) for order in ORDERS]
        found[name] = interval(np.array([[r["accuracy"] for r in one] for one in each]).T)
        size = np.mean([row["bytes"] for one in each for row in one]) / 1000
        means = ", ".join(f"{m:.3f}" for m in found[name].mean)
        told.append(f"{name}, files of {size:.1f} kB: {means}")
    alt = f"Test accuracy by order, for {', '.join(ORDERS)}. {'; '.join(told)}."
    labels = {"xlabel": "order", "ylabel": "test accuracy"}
    return plots.points(ORDERS, found, alt=alt, level=("dense", 0.961), width=5.2, **labels)


def smallest(rows: Sequence[Row]) -> Picture:
    """Test accuracy against the bytes of the file, for each sparsity and number of bits."""
    figure, (axes,) = plots.canvas(width=6.0, height=3.4)
    told = []
    some = sweep.select(rows, taught=False)
    shares = list(dict.fromkeys(row["sparsity"] for row in some))
    for share, look in zip(
        shares, styles.looks([f"{100 * s:.0f} % zeros" for s in shares]).values(), strict=True
    ):
        cells = sweep.select(some, sparsity=share)
        size = np.mean(sweep.column(cells, "bytes", by="bits", over="seed"), axis=0) / 1000
        right = by_seed(cells, "accuracy", "bits")
        bars = [right.mean - right.low, right.high - right.mean]
        look_of = {"marker": look.marker, "capsize": 2, **look.line}
        axes.errorbar(size, right.mean, bars, label=f"{100 * share:.0f} % zeros", **look_of)
        points = ((n, right.mean[i], size[i]) for i, n in enumerate((32, 4, 3, 2)) if n != 2)
        each = ", ".join(f"{m:.3f} in {kb:.1f} kB with {n}" for n, m, kb in points)
        told.append(f"{100 * share:.0f} % zeros {each}")
    ticks = [2.5, 3, 4, 5, 8, 25]
    axes.set_xscale("log")
    axes.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axes.minorticks_off()
    alt = f"Test accuracy against kilobytes, for 32, 4, 3 and 2 bits: {'; '.join(told)}."
    labels = "kilobytes of the file", "test accuracy"
    return plots.finish(figure, alt, *labels, above=2, intervals=styles.BARS)


def chosen(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """For each seed the smallest file that loses nothing on the images held back, and what it loses.

    Nothing is lost where the accuracy on the images held back is at least that of the whole network.
    """
    found = []
    for seed in dict.fromkeys(row["seed"] for row in rows):
        some = sweep.select(rows, seed=seed, taught=False)
        (whole,) = sweep.select(some, sparsity=0.0, bits=32)
        good = [row for row in some if row["held back"] >= whole["held back"]]
        best = min(good, key=lambda row: row["bytes"])
        made = {"seed": seed, "zeros": best["sparsity"], "bits": best["bits"]}
        made |= {"times smaller": whole["bytes"] / best["bytes"]}
        found.append(made | {"test accuracy": best["accuracy"] - whole["accuracy"]})
    return found
