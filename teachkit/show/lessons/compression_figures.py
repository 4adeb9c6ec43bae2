"""Lesson 13: its figures of bits and bytes, drawn from networks and from saved tables."""

from collections.abc import Mapping, Sequence
from math import comb, log2
from typing import Any

import numpy as np
import torch
from torch import Tensor

from teachkit import compression
from teachkit.lab import sweep
from teachkit.lab.curves import Interval, interval
from teachkit.lab.sweep import Row
from teachkit.show import plots, styles
from teachkit.show.pictures import Picture

PLACES = ["dense", "csr", "bitmask", "relative", "deep"]
SAID = {"relative": "zeros between", "deep": "zeros between,\nHuffman"}
BITS = [8, 4, 3, 2]


def by_seed(rows: Sequence[Row], name: str, by: str) -> Interval:
    """A column's mean and interval at each value of another one."""
    return interval(sweep.column(rows, name, by=by, over="seed"))


def least(n: int, kept: int) -> tuple[float, float]:
    """Bytes of so many float32 numbers, and the least bytes that say at which of n places they stand.

    >>> [round(each, 2) for each in least(8, 2)]
    [8.0, 0.6]
    """
    return 4.0 * kept, log2(comb(n, kept)) / 8


def forms(rows: Sequence[Row], sparsity: float) -> Picture:
    """Bytes of pruned float32 weights in each form: the numbers, and what it takes to place them."""
    some = sweep.select(rows, sparsity=sparsity, numbers="float32")
    n = round(np.mean([row["dense"] for row in some])) // 4
    numbers, places = (each / 1000 for each in least(n, n - round(sparsity * n)))
    sizes = {form: float(np.mean([row[form] for row in some])) / 1000 for form in PLACES}
    figure, (axes,) = plots.canvas(width=5.4, height=3.2)
    for at, form in enumerate(PLACES):
        rest = sizes[form] - numbers
        axes.barh(at, numbers, color=styles.BLUE, label="numbers" if not at else None)
        hatch: Any = {"color": "0.85", "edgecolor": "0.35", "hatch": "///"}
        axes.barh(at, rest, left=numbers, label="zeros, or places" if not at else None, **hatch)
        axes.text(sizes[form] + 2, at, f"{sizes[form]:.1f}", va="center", fontsize=9)
    axes.axvline(numbers + places, color="black", linewidth=1, linestyle=":")
    axes.set_yticks(range(len(PLACES)), [SAID.get(form, form) for form in PLACES])
    axes.set(ylim=(len(PLACES) - 0.4, -0.6), xlim=(0, sizes["dense"] * 1.1))
    axes.grid(False, axis="y")
    told = ", ".join(f"{form} {size:.1f}" for form, size in sizes.items())
    alt = (
        f"Kilobytes of {n} weights with {100 * sparsity:.0f} % zeros by form: {told}. The numbers take "
        f"{numbers:.1f} in each; dotted, with the fewest bytes for the places, {numbers + places:.1f}."
    )
    return plots.finish(figure, alt, "kilobytes", "", above=2)


def rounding(rows: Sequence[Row], ways: Sequence[str]) -> Picture:
    """Test accuracy, and how far the outputs move, by bits, for ways of rounding."""
    figure, (left, right) = plots.canvas(2, width=8.4, height=3.2)
    told = []
    for way, look in styles.looks(ways).items():
        for axes, name in ((left, way), (right, f"{way}: moved")):
            each = by_seed(rows, name, "bits")
            bars = [each.mean - each.low, each.high - each.mean]
            more: dict[str, Any] = {"label": way} if axes is left else {}
            axes.errorbar(BITS, each.mean, bars, marker=look.marker, capsize=2, **more, **look.line)
            told.append(f"{name} {', '.join(f'{m:.3f}' for m in each.mean)}")
    at = np.array([8, 2])
    dots: Any = {"color": "0.4", "linewidth": 1, "linestyle": ":"}
    right.plot(at, 0.6 * 2.0 ** (1 - at), label="twice as far for each bit less", **dots)
    right.set(yscale="log", xlabel="bits", ylabel="outputs moved by", xticks=BITS)
    for axes in (left, right):
        axes.invert_xaxis()
    alt = (
        f"Left test accuracy, right ‖f′ − f‖ / ‖f‖, at 8, 4, 3 and 2 bits: {'; '.join(told)}. "
        "Dotted: twice as far for each bit less."
    )
    labels = "bits", "test accuracy"
    return plots.finish(
        figure, alt, *labels, above=len(ways), intervals=styles.BARS, xticks=BITS, ylim=(0, 1.02)
    )


def clipping(W: Tensor, bits: Sequence[int] = (4, 3, 2)) -> Picture:
    """The relative error of a row by the share of its range that the grid spans."""
    row = W[int(W.norm(dim=1).argmax())][None]
    shares = torch.linspace(0.2, 1, 41).tolist()
    figure, (axes,) = plots.canvas(width=5.6, height=3.0)
    told = []
    for b, look in zip(bits, styles.looks([f"{b} bits" for b in bits]).values(), strict=True):
        made = [compression.rounded(row, compression.grid(row, b, clip=s)) for s in shares]
        wrong = [float((each - row).norm() / row.norm()) for each in made]
        best = int(np.argmin(wrong))
        axes.plot(shares, wrong, label=f"{b} bits", **look.line)
        axes.plot(shares[best], wrong[best], markersize=7, **look.point)
        told.append(
            f"{b} bits: {wrong[-1]:.2f} on all of it, {wrong[best]:.2f} at {shares[best]:.2f}"
        )
    alt = f"Relative error by the share of the range, a curve for each number of bits. {'; '.join(told)}."
    labels = "share of the range that the grid spans", "relative error of the row"
    return plots.finish(figure, alt, *labels, above=3, ylim=(0, None))


def touching(H: Tensor, w: Tensor) -> Picture:
    """Level lines of ½ δᵀHδ round two weights, the grid, and two ways to it: nearest, and with a step."""
    P = torch.linalg.inv(H)
    first = w.round()[0]
    moved = w + compression.step(w, P, 0, float(first))
    ends = {"nearest": w.round(), "GPTQ": torch.stack([first, moved[1].round()])}
    at = torch.linspace(-0.6, 1.8, 121)
    x, y = torch.meshgrid(at, at, indexing="xy")
    gap = torch.stack([x, y], -1) - w
    cost = 0.5 * ((gap @ H) * gap).sum(-1)
    losses = {n: float(0.5 * (e - w) @ H @ (e - w)) for n, e in ends.items()}
    figure, (axes,) = plots.canvas(width=5.0, height=4.2)
    touch = float(0.5 * (moved - w) @ H @ (moved - w))
    axes.contour(x, y, cost, levels=sorted([touch, *losses.values(), 1.5]), colors="0.7")
    xs, ys = np.meshgrid([0, 1], [0, 1])
    axes.plot(xs.ravel(), ys.ravel(), "s", color="0.3", markersize=9, fillstyle="none")
    axes.axvline(float(first), **plots.THIN)
    for name, look in styles.looks(ends).items():
        stops = [w, moved, ends[name]] if name == "GPTQ" else [w, ends[name]]
        path = torch.stack(stops)
        axes.plot(path[:, 0], path[:, 1], label=name, marker=look.marker, **look.line)
        axes.annotate(
            f"{losses[name]:.2f}", tuple(ends[name].tolist()), (8, 8), textcoords="offset points"
        )
    axes.plot(*w.tolist(), "o", color="black")
    axes.grid(False)
    alt = (
        f"Level lines of the loss round w = ({w[0]:g}, {w[1]:g}), tilted ellipses. The nearest grid "
        f"point costs {losses['nearest']:.2f}. Weight 1 to {first:g} with the step lets weight 2 fall to "
        f"{moved[1]:.2f}, where an ellipse touches the line; from there the grid point costs "
        f"{losses['GPTQ']:.2f}."
    )
    return plots.finish(figure, alt, "weight 1", "weight 2", above=2, aspect="equal")


def shared(w: Tensor, bits: int) -> Picture:
    """A histogram of weights, with the values of the best even grid and with those of k-means."""
    flat = w.reshape(-1)
    even = compression.rounded(flat[None], to := compression.grid(flat[None], bits, clip="best"))
    found = compression.kmeans(flat, 2**bits)
    wrong = [float((each - flat).norm() / flat.norm()) for each in (even[0], found.dense())]
    figure, (axes,) = plots.canvas(width=6.0, height=2.6)
    axes.hist(flat.numpy(), bins=60, **plots.BARS)
    values = [float(to.scale) * q for q in range(to.low, to.high + 1)]
    top = axes.get_ylim()[1]
    axes.plot(values, [1.04 * top] * len(values), markersize=7, label="even", **_marks("nearest"))
    centres = found.centres.tolist()
    axes.plot(centres, [1.13 * top] * len(centres), ms=7, label="k-means", **_marks("k-means"))
    used = len(found.labels.unique())  # type: ignore[no-untyped-call]
    alt = (
        f"Histogram of {len(flat)} weights; above it the values of the best even grid of {bits} bits, "
        f"relative error {wrong[0]:.3f}, and {len(centres)} centres of k-means, {used} of them with "
        f"weights, relative error {wrong[1]:.3f}."
    )
    says = f"relative error: even {wrong[0]:.3f}, k-means {wrong[1]:.3f}"
    return plots.finish(figure, alt, "weight", "how many", says=says, above=2)


def _marks(name: str) -> dict[str, Any]:
    return dict(styles.look(name).point)


def costs(rows: Sequence[Row], sparsity: float) -> Picture:
    """Kilobytes and milliseconds to read, for each form, at one sparsity."""
    (row,) = sweep.select(rows, sparsity=sparsity)
    names = ["dense", "csr", "bitmask", "relative", "deep", "gzip", "lzma", "zstd", "2:4"]
    figure, (axes,) = plots.canvas(width=6.0, height=3.2)
    for name in names:
        at = row[f"{name}: bytes"] / 1000, row[f"{name}: read"]
        point = styles.look(name).point | ({"marker": "o"} if name == "dense" else {})
        axes.plot(*at, markersize=7, **point)
        left, below = name in ("zstd", "lzma"), name in ("relative", "csr", "deep")
        side: dict[str, Any] = {"ha": "right" if left else "left", "textcoords": "offset points"}
        axes.annotate(name, at, (-7 if left else 7, -9 if below else 3), fontsize=9, **side)
    told = "; ".join(
        f"{n} {row[f'{n}: bytes'] / 1000:.0f} kB, {row[f'{n}: read']:.2g} ms" for n in names
    )
    alt = f"Milliseconds to read a layer of 300 × 784 against its kilobytes, log on log: {told}."
    scale: dict[str, Any] = {
        "xscale": "log",
        "yscale": "log",
        "xlim": (70, 1700),
        "ylim": (0.04, 20),
        "xticks": [100, 200, 500, 1000],
        "xticklabels": [100, 200, 500, 1000],
        "yticks": [0.1, 1, 10],
        "yticklabels": [0.1, 1, 10],
    }
    made = plots.finish(figure, alt, "kilobytes", "milliseconds to read it", **scale)
    axes.minorticks_off()
    return made


def products(
    rows: Sequence[Row], at: Mapping[str, tuple[float | None, str]]
) -> list[dict[str, Any]]:
    """Milliseconds to multiply one row and 256 rows, by what is stored, as records.

    ``at`` has by name a sparsity and a way; without a sparsity, which a dense product does not mind, it
    is the median of the measurements at all of them.
    """
    found = []
    for name, (sparsity, way) in at.items():
        some = rows if sparsity is None else sweep.select(rows, sparsity=sparsity)
        took = {n: float(np.median([row[f"{way}: {n} rows"] for row in some])) for n in (1, 256)}
        found.append({"weights": name} | {f"{n} rows": ms for n, ms in took.items()})
    return found
