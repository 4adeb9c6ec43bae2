"""The figures of the lessons: each function draws data it is given and returns a Picture."""

from collections.abc import Mapping, Sequence
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import sympy
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sympy import Expr, Symbol

from teachkit.hessian import CriticalPoint
from teachkit.lab.curves import Interval
from teachkit.lab.session import COLOURS, LINES
from teachkit.show.pictures import Picture

MARKERS = {"minimum": "v", "maximum": "^", "saddle": "X", "undecided": "o", "inflection": "s"}


def canvas(columns: int = 1, width: float = 6.4, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side that makes room for every label."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def lines(
    x: ArrayLike,
    curves: Mapping[str, ArrayLike],
    *,
    xlabel: str,
    ylabel: str,
    alt: str,
    bands: Mapping[str, tuple[ArrayLike, ArrayLike]] | None = None,
    level: tuple[str, float] | None = None,
    xscale: str = "linear",
    ylim: tuple[float, float] | None = None,
) -> Picture:
    """Curves over one x, told apart by colour and by dash, with a legend.

    Args:
        x: positions (n,).
        curves: y values (n,) by label.
        xlabel: what x is, with its unit.
        ylabel: what y is, with its unit.
        alt: alt text.
        bands: (low, high), each (n,), shaded behind the curve of that label.
        level: a labelled horizontal line.
        xscale: "linear" or "log".
        ylim: limits of y.

    """
    figure, (axes,) = canvas()
    at = np.asarray(x, float)
    for i, (label, y) in enumerate(curves.items()):
        colour, dash = COLOURS[i % len(COLOURS)], LINES[i % len(LINES)]
        marker = "o" if len(at) <= 25 else None
        y = np.asarray(y, float)
        axes.plot(at, y, label=label, color=colour, linestyle=dash, marker=marker, markersize=4)
        if bands and label in bands:
            low, high = (np.asarray(edge, float) for edge in bands[label])
            axes.fill_between(at, low, high, color=colour, alpha=0.2, linewidth=0)
    if level:
        axes.axhline(level[1], color="0.4", linewidth=1, label=level[0], linestyle=":")
    axes.set(xlabel=xlabel, ylabel=ylabel, xscale=xscale, ylim=ylim)
    if len(curves) > 1 or level:
        figure.legend(loc="outside upper center", ncols=3, frameon=False)
    return Picture(figure, alt)


def differences(
    categories: Sequence[object],
    intervals: Mapping[str, Interval],
    *,
    xlabel: str,
    ylabel: str,
    alt: str,
) -> Picture:
    """Means with their intervals at equal steps, side by side, and the line of no difference.

    Args:
        categories: what stands at each step (n,).
        intervals: of arrays (n,), by label.
        xlabel: what the categories are, with their unit.
        ylabel: what differs, with its unit.
        alt: alt text.

    """
    figure, (axes,) = canvas()
    places = np.arange(len(categories))
    for i, (label, (mean, low, high)) in enumerate(intervals.items()):
        shift = 0.5 * (i - (len(intervals) - 1) / 2) / len(intervals)
        axes.errorbar(
            places + shift,
            mean,
            yerr=np.stack([mean - low, high - mean]),
            label=label,
            color=COLOURS[i % len(COLOURS)],
            marker="osD^v"[i % 5],
            markersize=5,
            linestyle="none",
            capsize=3,
        )
    axes.axhline(0, color="0.4", linewidth=1, linestyle=":", label="no difference")
    axes.set(xlabel=xlabel, ylabel=ylabel, xticks=places, xticklabels=[str(c) for c in categories])
    axes.grid(False, axis="x")
    figure.legend(loc="outside upper center", ncols=4, frameon=False)
    return Picture(figure, alt)


def contours(
    f: Expr,
    variables: tuple[Symbol, Symbol],
    points: Sequence[CriticalPoint],
    *,
    alt: str,
    span: float = 2.0,
    title: str = "",
) -> Picture:
    """Level lines of a function of two variables, with its critical points by kind."""
    grid = np.linspace(-span, span, 161)
    x, y = np.meshgrid(grid, grid)
    z = np.broadcast_to(sympy.lambdify(variables, f, "numpy")(x, y), x.shape).astype(float)
    figure, (axes,) = canvas(width=5.4, height=4.2)
    z = np.ma.masked_invalid(z)  # poles stay white
    if z.count() and np.ptp(z) > 0:
        filled = axes.contourf(x, y, z, levels=24)
        axes.contour(x, y, z, levels=24, colors="white", linewidths=0.4)
        figure.colorbar(filled, ax=axes, label="f")
    for kind in dict.fromkeys(p.kind for p in points):
        at = np.array([[float(p.point[v]) for v in variables] for p in points if p.kind == kind])
        axes.scatter(
            at[:, 0],
            at[:, 1],
            s=130,
            marker=MARKERS[kind],
            color="white",
            edgecolors="black",
            label=kind,
            zorder=3,
        )
    if points:
        axes.legend(loc="upper right")
    axes.set(xlabel=str(variables[0]), ylabel=str(variables[1]), title=title, aspect="equal")
    axes.grid(False)
    return Picture(figure, alt)


def histogram(
    values: ArrayLike,
    *,
    xlabel: str,
    ylabel: str,
    alt: str,
    marks: Mapping[str, float] | None = None,
    bins: int | Sequence[float] = 40,
) -> Picture:
    """How often which value occurs, with labelled vertical marks."""
    figure, (axes,) = canvas()
    axes.hist(np.asarray(values, float), bins=bins, color="0.75", edgecolor="0.45", linewidth=0.5)
    for i, (label, value) in enumerate((marks or {}).items()):
        axes.axvline(value, color=COLOURS[i % 7], linestyle=LINES[i % 7], label=label)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if marks:
        axes.legend(frameon=False)
    return Picture(figure, alt)


def spectrum(eigenvalues: Mapping[str, ArrayLike], *, alt: str, linear: float = 1e-4) -> Picture:
    """Eigenvalues in descending order, symmetric-logarithmic: positive above, negative below zero."""
    figure, (axes,) = canvas()
    for i, (label, values) in enumerate(eigenvalues.items()):
        ordered = np.sort(np.asarray(values, float))[::-1]
        axes.plot(
            np.arange(1, len(ordered) + 1),
            ordered,
            label=label,
            color=COLOURS[i],
            linestyle=LINES[i],
        )
    axes.axhline(0, color="0.4", linewidth=1, linestyle="-")
    axes.set_yscale("symlog", linthresh=linear)
    axes.set(xlabel="rank of the eigenvalue", ylabel="eigenvalue of H")
    axes.legend(frameon=False)
    return Picture(figure, alt)


def scatter(
    x: ArrayLike, y: ArrayLike, *, xlabel: str, ylabel: str, alt: str, diagonal: bool = True
) -> Picture:
    """Points, and the line on which x and y agree."""
    figure, (axes,) = canvas(width=4.8, height=4.0)
    at, to = np.asarray(x, float), np.asarray(y, float)
    axes.scatter(at, to, s=22, alpha=0.7, color=COLOURS[0], edgecolors="none")
    if diagonal:
        ends = [min(at.min(), to.min()), max(at.max(), to.max())]
        axes.plot(ends, ends, color="0.3", linewidth=1, linestyle="--", label="prediction = truth")
        axes.legend(frameon=False)
    axes.set(xlabel=xlabel, ylabel=ylabel)
    return Picture(figure, alt)


def matrices(
    shown: Mapping[str, ArrayLike], *, alt: str, height: float = 2.6, title: str = ""
) -> Picture:
    """Matrices as grey pictures side by side; boolean ones as masks, black keeps."""
    figure, all_axes = canvas(len(shown), width=max(6.4, 1.9 * len(shown)), height=height)
    for axes, (name, matrix) in zip(all_axes, shown.items(), strict=True):
        values = np.asarray(matrix)
        mask = values.dtype == bool
        colours = ListedColormap(["white", "black"]) if mask else plt.get_cmap("gray_r")
        low, high = (0, 1) if mask else (None, None)
        aspect: Literal["auto", "equal"] = "auto" if mask else "equal"
        axes.imshow(
            values, cmap=colours, vmin=low, vmax=high, interpolation="nearest", aspect=aspect
        )
        axes.set(title=name, xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(mask)
    figure.suptitle(title)
    return Picture(figure, alt)
