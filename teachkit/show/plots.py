"""The figures of the lessons: each function draws data it is given and returns a Picture."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import sympy
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sympy import Expr, Symbol

from teachkit.core import door
from teachkit.engine.symbolic import expression_and_names, printable
from teachkit.hessian import CriticalPoint
from teachkit.lab.curves import Interval
from teachkit.show import labels as direct
from teachkit.show import styles
from teachkit.show.pictures import Picture

MARKERS = {"minimum": "v", "maximum": "^", "saddle": "X", "undecided": "o", "inflection": "s"}
Look = dict[str, Any]
THIN: Look = {"color": "0.4", "linewidth": 1, "linestyle": ":"}
BARS: Look = {"color": "0.75", "edgecolor": "0.45", "linewidth": 0.5}

Curves = Mapping[str, ArrayLike]
Bands = Mapping[str, tuple[ArrayLike, ArrayLike]]


def canvas(columns: int = 1, width: float = 6.4, height: float = 3.6) -> tuple[Figure, list[Axes]]:
    """A figure with axes side by side that makes room for every label."""
    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(figure.subplots(1, columns, squeeze=False)[0])


def draw(
    axes: Axes,
    x: ArrayLike,
    curves: Curves,
    bands: Bands | None = None,
    marks: bool = False,
    ms: int = 4,
) -> None:
    """Labelled curves over one x, in the look of their names, shaded where there is an interval."""
    for label, look in styles.looks(curves).items():
        marker = look.marker if marks else ""
        axes.plot(x, curves[label], label=label, marker=marker, markersize=ms, **look.line)
        if bands and label in bands:
            low, high = bands[label]
            axes.fill_between(x, low, high, color=look.colour, alpha=0.2, linewidth=0)


def explain(figure: Figure, words: str) -> None:
    """One line below the axes that says what shades or bars are."""
    figure.supxlabel(words, fontsize=8, color="0.35", x=0.99, ha="right")


def finish(
    figure: Figure,
    alt: str,
    xlabel: str,
    ylabel: str,
    says: str = "",
    above: int = 0,
    intervals: str = "",
    **settings: Any,
) -> Picture:
    """The Picture of a figure, after a title, labels, and the names of what is drawn.

    Args:
        figure: drawn; the rest concerns its first axes.
        alt: alt text.
        xlabel: what x is, with its unit.
        ylabel: what y is, with its unit.
        says: title: the numbers that one should read off.
        above: columns of a legend above the axes; none for 0. Lines are named at their ends instead
            where there is room.
        intervals: what shades or bars are, one of ``styles.SHADED`` and ``styles.BARS``.
        settings: more for ``Axes.set``, e.g. xscale or ylim.

    """
    axes = figure.axes[0]
    if says:
        axes.set_title(says, fontsize=10)
    axes.set(xlabel=xlabel, ylabel=ylabel, **settings)
    if intervals:
        explain(figure, intervals)
    if above and not direct.at_ends(axes):
        figure.legend(loc="outside upper center", ncols=above, frameon=False)
    return Picture(figure, alt)


def lines(
    x: ArrayLike,
    curves: Mapping[str, ArrayLike | Interval],
    *,
    alt: str,
    bands: Bands | None = None,
    level: tuple[str, float] | None = None,
    width: float = 6.4,
    **settings: Any,
) -> Picture:
    """Curves (n,) over one x (n,), told apart by colour, dash and marker, named at their ends.

    Args:
        x: positions (n,).
        curves: by label, y values (n,), or an interval of arrays (n,): its mean, and a band.
        alt: alt text.
        bands: (low, high), each (n,), shaded behind the curve of that label.
        level: a labelled horizontal line.
        width: of the figure, in inches.
        settings: xlabel, ylabel and more for :func:`finish`.

    """
    figure, (axes,) = canvas(width=width, height=0.5625 * width)
    at = np.asarray(x, float)
    found = {name: y for name, y in curves.items() if isinstance(y, Interval)}
    bands = {name: (y.low, y.high) for name, y in found.items()} | dict(bands or {})
    means = {name: y.mean if isinstance(y, Interval) else y for name, y in curves.items()}
    draw(axes, at, means, bands, marks=len(at) <= 25)
    if level:
        axes.axhline(level[1], label=level[0], **THIN)
    settings |= {"above": 3 if len(curves) > 1 or level else 0}
    return finish(figure, alt, intervals=styles.SHADED if bands else "", **settings)


def points(
    categories: Sequence[object],
    intervals: Mapping[str, Interval],
    *,
    alt: str,
    level: tuple[str, float] | None = None,
    width: float = 6.4,
    **labels: Any,
) -> Picture:
    """Means with their intervals of arrays (n,), side by side at each of n categories.

    ``level`` is a labelled horizontal line, ``width`` that of the figure in inches.
    """
    figure, (axes,) = canvas(width=width)
    places = np.arange(len(categories))
    looks = styles.looks(intervals)
    for i, (label, (mean, low, high)) in enumerate(intervals.items()):
        at = places + 0.7 * (i - (len(intervals) - 1) / 2) / len(intervals)
        bars = [mean - low, high - mean]
        axes.errorbar(at, mean, bars, label=label, markersize=5, capsize=3, **looks[label].point)
    if level:
        axes.axhline(level[1], label=level[0], **THIN)
    axes.set_xticks(places, [str(category) for category in categories])
    axes.grid(False, axis="x")
    return finish(figure, alt, above=4, intervals=styles.BARS, **labels)


def differences(
    categories: Sequence[object], intervals: Mapping[str, Interval], *, alt: str, **labels: Any
) -> Picture:
    """Mean differences with their intervals, as points, and the line of no difference."""
    return points(categories, intervals, alt=alt, level=("no difference", 0.0), **labels)


def tiles(images: np.ndarray, border: float) -> np.ndarray:
    """Images (rows, columns, h, w) as one, with a line of one pixel around each."""
    rows, columns, h, w = images.shape
    framed = np.pad(images, [(0, 0), (0, 0), (1, 0), (1, 0)], constant_values=border)
    one = framed.transpose(0, 2, 1, 3).reshape(rows * (h + 1), columns * (w + 1))
    return np.pad(one, [(0, 1), (0, 1)], constant_values=border)


def contours(
    f: Expr,
    variables: tuple[Symbol, Symbol],
    points: Sequence[CriticalPoint],
    *,
    alt: str,
    title: str = "",
) -> Picture:
    """Level lines of a function of two variables, with its critical points by kind."""
    grid = np.linspace(-2, 2, 161)
    x, y = np.meshgrid(grid, grid)
    f, names = expression_and_names(printable(f), variables)
    z = np.broadcast_to(sympy.lambdify(names, f, "numpy")(x, y), x.shape).astype(float)
    figure, (axes,) = canvas(width=5.4, height=4.2)
    z = np.ma.masked_invalid(z)  # poles stay white
    if z.count() and np.ptp(z) > 0:
        filled = axes.contourf(x, y, z, levels=24)
        axes.contour(x, y, z, levels=24, colors="white", linewidths=0.4)
        figure.colorbar(filled, ax=axes, label="f" + " (dashed: f < 0)" * bool(z.min() < 0))
    look: Look = {"s": 130, "color": "white", "edgecolors": "black", "zorder": 3}
    for kind in dict.fromkeys(p.kind for p in points):
        at = np.array([[float(p.point[v]) for v in variables] for p in points if p.kind == kind])
        axes.scatter(at[:, 0], at[:, 1], marker=MARKERS[kind], label=kind, **look)
    if points:
        axes.legend(loc="upper right")
    axes.grid(False)
    v, w = map(str, variables)
    return finish(figure, alt, xlabel=v, ylabel=w, title=title, aspect="equal")


def histogram(
    values: ArrayLike, *, alt: str, marks: Mapping[str, float] | None = None, **labels: Any
) -> Picture:
    """How often which value occurs, with labelled vertical marks."""
    figure, (axes,) = canvas()
    axes.hist(np.asarray(values, float), bins=40, **BARS)
    for label, look in styles.looks(marks or {}).items():
        axes.axvline(marks[label], label=label, **look.line)  # type: ignore[index]
    if marks:
        axes.legend(frameon=False)
    return finish(figure, alt, **labels)


def spectrum(eigenvalues: Curves, *, alt: str) -> Picture:
    """Eigenvalues in descending order, symmetric-logarithmic: positive above, negative below zero."""
    figure, (axes,) = canvas()
    for label, look in styles.looks(eigenvalues).items():
        ordered = np.sort(np.asarray(eigenvalues[label], float))[::-1]
        axes.plot(np.arange(1, len(ordered) + 1), ordered, label=label, **look.line)
    axes.axhline(0, color="0.4", linewidth=1)
    axes.set_yscale("symlog", linthresh=1e-4)
    axes.legend(frameon=False)
    return finish(
        figure, alt, xlabel="rank of the eigenvalue", ylabel="eigenvalue of H (linear within ±10⁻⁴)"
    )


def scatter(x: ArrayLike, y: ArrayLike, *, alt: str, **labels: Any) -> Picture:
    """Points, and the line on which x and y agree."""
    figure, (axes,) = canvas(width=4.8, height=4.0)
    at, to = np.asarray(x, float), np.asarray(y, float)
    axes.scatter(at, to, s=22, alpha=0.7, color=styles.BLUE, edgecolors="none")
    ends = [min(at.min(), to.min()), max(at.max(), to.max())]
    axes.plot(ends, ends, color="0.3", linewidth=1, linestyle="--", label="prediction = truth")
    axes.legend(frameon=False)
    return finish(figure, alt, **labels)


def matrices(shown: Mapping[str, ArrayLike], *, alt: str, title: str = "") -> Picture:
    """Matrices as grey pictures side by side; boolean ones as masks, black keeps."""
    figure, all_axes = canvas(len(shown), width=max(6.4, 1.9 * len(shown)), height=2.6)
    for axes, (name, matrix) in zip(all_axes, shown.items(), strict=True):
        values = np.asarray(matrix)
        mask = values.dtype == bool
        look: Look = {"cmap": "gray_r", "interpolation": "nearest"}
        if mask:
            look |= {"vmin": 0, "vmax": 1, "aspect": "auto"}
        axes.imshow(values, **look)
        axes.set(title=name, xticks=[], yticks=[])
        axes.grid(False)
        axes.spines[:].set_visible(mask)
    figure.suptitle(title)
    return Picture(figure, alt)


door.hold(globals())
