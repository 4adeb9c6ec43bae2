"""Lesson 11: its figures that stand still, drawn from networks and from saved tables."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor, nn

from teachkit import masks, paradox
from teachkit.core.types import Batch, Masks, Params
from teachkit.lab import sweep
from teachkit.lab.curves import Interval, interval, spearman
from teachkit.lab.evaluation import accuracy
from teachkit.lab.sweep import Row
from teachkit.show import plots, styles
from teachkit.show.pictures import Picture

CHANGE = "change of the loss"
DIGIT = "digit that the network says"


def flat(params: Params) -> Tensor:
    """All entries of a dict as one vector."""
    return torch.cat([t.reshape(-1) for t in params.values()])


def answers_of(model: nn.Module, x: Tensor) -> NDArray[np.float64]:
    """The share of the inputs that is given each answer."""
    with torch.no_grad():
        said = model(x)
    shares: Tensor = said.argmax(1).bincount(minlength=said.shape[1]) / len(x)
    return shares.numpy()


def most_frequent(model: nn.Module, x: Tensor) -> dict[str, float]:
    """The share of the inputs that get the most frequent answer, and the two most frequent ones."""
    shares = np.sort(answers_of(model, x))[::-1]
    return {"one": float(shares[0]), "two": float(shares[:2].sum())}


def bars(axes: Axes, shares: NDArray[np.float64], title: str) -> None:
    """How often each answer is given."""
    axes.bar(np.arange(len(shares)), shares, **plots.BARS)
    axes.set(ylim=(0, 1), xlabel=DIGIT, title=title, xticks=np.arange(len(shares)))
    axes.title.set_fontsize(10)
    axes.grid(False)


def answers(nets: Mapping[str, nn.Module], test: Batch) -> Picture:
    """What each network says to the test images, side by side."""
    figure, every = plots.canvas(len(nets), width=2.5 * len(nets), height=2.3)
    told = []
    for axes, (name, net) in zip(every, nets.items(), strict=True):
        shares, right = answers_of(net, test[0]), accuracy(net, test)
        bars(axes, shares, f"{name}\ntest accuracy {right:.2f}")
        told.append(f"{name}: {shares.argmax()} to {shares.max():.0%}, accuracy {right:.2f}")
    alt = f"How often each network gives each answer; the most frequent one is {'; '.join(told)}."
    return plots.finish(figure, alt, DIGIT, "share of the images")


def valley() -> Picture:
    """L = (w1 + w2 − 1)²: each step alone reaches the bottom, both together climb the other side."""
    grid = np.linspace(-0.4, 1.4, 120)
    x, y = np.meshgrid(grid, grid)
    figure, (axes,) = plots.canvas(width=4.2, height=4.0)
    axes.contourf(x, y, (x + y - 1) ** 2, levels=np.linspace(0, 3.5, 11), cmap="Greys")
    axes.plot([-0.4, 1.4], [1.4, -0.4], color=styles.GREEN, linewidth=2)
    ways = {"w1 goes": (-1, 0), "w2 goes": (0, -1), "both go": (-1, -1)}
    for label, (dx, dy) in ways.items():
        look = {"color": styles.look(label).colour, "linewidth": 2.2, "arrowstyle": "-|>"}
        axes.annotate("", (1 + dx, 1 + dy), (1, 1), arrowprops=look | {"shrinkA": 0, "shrinkB": 0})
    for (at_x, at_y), words, away in (
        ((1, 1), "start: L = 1", (-30, 8)),
        ((0, 1), "without w1: L = 0", (-42, 8)),
        ((1, 0), "without w2: L = 0", (-60, -14)),
        ((0, 0), "without both: L = 1", (-40, -14)),
    ):
        axes.plot([at_x], [at_y], "ko", markersize=5)
        axes.annotate(words, (at_x, at_y), away, textcoords="offset points", fontsize=10)
    alt = (
        "The loss (w1 + w2 − 1)² as grey levels, with a valley of zero loss along w1 + w2 = 1. From (1, 1) "
        "the step that removes w1 and the one that removes w2 each end in the valley; both together end at "
        "(0, 0), as high on the other side."
    )
    axes.grid(False)
    return plots.finish(figure, alt, "w1", "w2", aspect="equal")


def growth(
    model: nn.Module, x: Tensor, sets: Mapping[str, Masks], counts: Sequence[int]
) -> Picture:
    """The mean push on the outputs by m of the removals of each set, and its slope, log on log."""
    dice, curves, slopes = torch.Generator().manual_seed(17), {}, {}
    for name, kept in sets.items():
        parts = [[paradox.part(kept, m, dice) for _ in range(5)] for m in counts]
        norms = [
            [float(paradox.pushes(model, x, k).mean(0).norm()) for k in some] for some in parts
        ]
        curves[name] = np.mean(norms, axis=1)
        slopes[name] = np.polyfit(np.log(counts), np.log(curves[name]), 1)[0]
    figure, (axes,) = plots.canvas(width=5.0, height=2.9)
    plots.draw(axes, counts, curves, marks=True)
    told = ", ".join(f"{name} {slope:.2f}" for name, slope in slopes.items())
    alt = f"Mean push on the outputs against the number of removed weights, log on log. Slopes: {told}."
    axes.loglog()
    axes.set_xticks(list(counts), [str(m) for m in counts])
    axes.minorticks_off()
    labels = "number m of removed weights", "mean push on the outputs"
    return plots.finish(figure, alt, *labels, says=f"slopes: {told}", above=3)


def shift(model: nn.Module, cuts: Mapping[str, nn.Module], x: Tensor) -> Picture:
    """By how much each output moves: the mean over the images, and a bar for their spread."""
    figure, every = plots.canvas(len(cuts), width=3.6 * len(cuts), height=2.5)
    told, low, high = [], 0.0, 0.0
    for axes, (name, cut) in zip(every, cuts.items(), strict=True):
        with torch.no_grad():
            moved = cut(x) - model(x)
        mean, sd = moved.mean(0).numpy(), moved.std(0).numpy()
        axes.bar(np.arange(len(mean)), mean, **plots.BARS)
        axes.errorbar(np.arange(len(mean)), mean, sd, capsize=3, **styles.look(name).point, ms=3)
        common, spread = np.linalg.norm(mean), np.linalg.norm(sd)
        axes.set(title=f"{name}: shift {common:.1f}, spread {spread:.1f}", xlabel="output of digit")
        axes.title.set_fontsize(10)
        axes.set_xticks(np.arange(len(mean)))
        told.append(f"{name}: length of the mean shift {common:.1f}, of the spread {spread:.1f}")
        low, high = min(low, (mean - sd).min()), max(high, (mean + sd).max())
    for axes in every:
        axes.set_ylim(1.05 * low, 1.05 * high)
    plots.explain(figure, "Bars: mean over the images. Whiskers: their standard deviation.")
    alt = f"By how much each of the outputs moves when 5 % of the weights go. {'; '.join(told)}."
    return plots.finish(figure, alt, "output of digit", "change of the output")


def parts(rows: Sequence[Row], nets: Sequence[str]) -> Picture:
    """½ δᵀHδ of T2's choice beside that of a random one, and the shares of its three parts."""
    figure, (left, right) = plots.canvas(2, width=7.4, height=2.8)
    places, sizes = np.arange(len(nets)), {}
    keys = ("mean", "mixed", "rest")
    some = [sweep.select(rows, net=net) for net in nets]
    for name, offset in (("T2", -0.12), ("random", 0.12)):
        whole = np.array(
            [np.mean([sum(r[f"{name}: {k}"] for k in keys) for r in of]) for of in some]
        )
        left.plot(places + offset, whole, label=name, **styles.look(name).point)
        sizes[name] = whole
    left.set_yscale("log")
    left.legend(frameon=False)
    for key, label in zip(keys, PARTS, strict=True):
        shares = np.array([np.mean([r[f"T2: {key}"] for r in of]) for of in some]) / sizes["T2"]
        right.plot(places, shares, label=label, **styles.look(label).point)
    right.axhline(0, **plots.THIN)
    for axes in (left, right):
        axes.set_xticks(places, [net.replace(", ", ",\n") for net in nets], fontsize=8)
    right.set(ylabel="share of T2's whole", xlabel="network")
    named = right.get_legend_handles_labels()
    figure.legend(*named, loc="outside lower center", ncols=3, frameon=False)
    ratio = sizes["T2"] / sizes["random"]
    told = ", ".join(f"{net} {r:.1f}" for net, r in zip(nets, ratio, strict=True))
    alt = f"The joint second-order change of 5 %; T2's in units of a random set's: {told}."
    return plots.finish(figure, alt, "network", "½ δᵀHδ")


PARTS = ("by the mean shift", "mixed", "by what differs from image to image")


def mended(rows: Sequence[Row], nets: Sequence[str], names: Sequence[str]) -> Picture:
    """Mean accuracy before and after the means are restored, and the spreads as well: one arrow each."""
    figure, (axes,) = plots.canvas(width=8.0, height=0.4 * len(nets) + 1.1)
    for row, net in enumerate(nets):
        some = sweep.select(rows, net=net)
        for k, name in enumerate(names):
            y, look = row + 0.22 * (k - (len(names) - 1) / 2), styles.look(name)
            x = [np.mean([r[name + how] for r in some]) for how in HOW]
            axes.plot(x, [y] * 3, label=name if not row else None, **look.line)
            for at, fill in zip(x, ("none", "left", "full"), strict=True):
                axes.plot([at], [y], color=look.colour, marker="o", fillstyle=fill, ms=7, ls="")
    axes.set_yticks(range(len(nets)), list(nets))
    axes.invert_yaxis()
    figure.legend(loc="outside upper center", ncols=len(names), frameon=False)
    told = "; ".join(f"{net} {_gain(rows, net, 'T2')}" for net in nets)
    alt = f"Mean test accuracy before and after the repairs. T2 without, with means, with both: {told}."
    labels = (
        "test accuracy, mean over 10 to 90 % removed\n"
        "(open: pruned; half: means restored; full: means and spreads restored)"
    )
    return plots.finish(figure, alt, labels, "", xlim=(0, 1))


HOW = ("", " + means", " + means and spreads")


def _gain(rows: Sequence[Row], net: str, name: str) -> str:
    some = sweep.select(rows, net=net)
    return ", ".join(f"{np.mean([r[name + how] for r in some]):.2f}" for how in HOW)


def number(row: Row, key: str) -> float:
    """A number that is known before pruning, one of ``NUMBERS``."""
    return float(NUMBERS[key](row))


def hits(rows: Sequence[Row], key: str, threshold: float) -> NDArray[np.bool_]:
    """Whether "T2 loses where the number is above the threshold" is right, for each network."""
    return np.array([(number(r, key) > threshold) == (r["T2"] < r["random"]) for r in rows])


def best_threshold(rows: Sequence[Row], key: str) -> float:
    """The threshold with the most hits: of those as good the middle one, between two numbers."""
    at = np.sort([number(r, key) for r in rows])
    if at[0] == at[-1]:
        return 0.0
    between = np.sqrt(at[1:] * at[:-1]) if at[0] > 0 else (at[1:] + at[:-1]) / 2
    right = np.array([hits(rows, key, t).sum() for t in between])
    best = between[right == right.max()]
    return float(best[len(best) // 2])


def law(panels: Mapping[str, Sequence[Row]], key: str, threshold: float) -> Picture:
    """What T2 gains over random, against a number known beforehand, a panel for each group."""
    figure, every = plots.canvas(len(panels), width=3.7 * len(panels), height=2.7)
    told = []
    for axes, (name, rows) in zip(every, panels.items(), strict=True):
        x, y = [number(r, key) for r in rows], [r["T2"] - r["random"] for r in rows]
        good = hits(rows, key, threshold)
        for label, part in {"predicted": good, "missed": ~good}.items():
            look = styles.look(label).point | {"markersize": 4}
            axes.plot(np.array(x)[part], np.array(y)[part], label=label, **look)
        axes.axvline(threshold, **plots.THIN)
        axes.axhline(0, **plots.THIN)
        share = f"{good.sum()} of {len(rows)} predicted"
        axes.set(xscale="log", xlabel=XLABELS[key], title=f"{name}: {share}")
        axes.title.set_fontsize(10)
        told.append(f"{name}: {share}, rank correlation {spearman(x, y):.2f}")
        axes.set_ylim(-1, 0.4)
    figure.legend(
        *every[0].get_legend_handles_labels(), loc="outside lower center", ncols=2, frameon=False
    )
    alt = f"Accuracy by T2 less random at 10 %, against {XLABELS[key]}. {'; '.join(told)}."
    return plots.finish(figure, alt, XLABELS[key], "accuracy by T2 less random")


XLABELS = {
    "gradient": "length of the gradient",
    "joint cost ÷ random": "joint cost of T2's choice ÷ of random",
}


def arms(model: nn.Module, test: Batch, change: paradox.Spread) -> Picture:
    """SD against MEAN of the predicted change, a point a weight; marked are the 30 % that T2 removes."""
    figure, (axes,) = plots.canvas(width=4.2, height=3.0)
    kept = masks.keep_top(change.mean, 0.3)
    mean, sd, stay = (flat(each).numpy() for each in (change.mean, change.sd, kept))
    shown = sd > 1e-9  # weights from dead pixels change nothing and have no place on this axis
    for label, part in {"stays": stay & shown, "goes": ~stay & shown}.items():
        look = styles.look(label).point | {"markersize": 1.2, "rasterized": True}
        axes.plot(mean[part], sd[part], label=label, **look)
    axes.set_xscale("symlog", linthresh=1e-5)
    axes.set_yscale("log")
    axes.set_xticks([-1e-2, -1e-4, 0, 1e-4, 1e-2])
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2, frameon=False, markerscale=4)
    reached = accuracy(masks.apply(model, kept), test)
    says = f"30 % removed by T2: test accuracy {reached:.2f}"
    alt = f"SD against MEAN of each weight's change, a point a weight: a V with two arms. {says}."
    return plots.finish(figure, alt, "MEAN of the change", "SD over the images", says=says)


def by_sparsity(rows: Sequence[Row], key: str, names: Sequence[str]) -> dict[str, Interval]:
    """The accuracies of some arms over the sparsities that are columns of a saved table."""
    columns = [name for name in rows[0] if name.endswith(" %")]
    return {
        name: interval([[r[c] for c in columns] for r in rows if r[key] == name]) for name in names
    }


def sparsities(rows: Sequence[Row]) -> list[float]:
    """The sparsities that a saved table has as columns."""
    return [float(name[:-2]) / 100 for name in rows[0] if name.endswith(" %")]


def slopes(rows: Sequence[Row]) -> dict[str, Interval]:
    """The slopes of the mean push of each set, over the networks."""
    return {name: interval([r[f"{name}: push"] for r in rows]) for name in SETS}


SETS = ("T2", "random")


def beforehand(rows: Sequence[Row]) -> dict[str, float]:
    """The gradient's length, and test accuracy by T2 and at random, over the networks."""
    return {key: float(np.mean([r[key] for r in rows])) for key in ("gradient", "T2", "random")}


def promises(rows: Sequence[Row]) -> dict[str, float]:
    """What T2's choice was promised to do and did, on the samples of the estimate and on others."""
    keys = ("promised, own", "actual, own", "promised, other", "actual, other")
    return {key: float(np.mean([r[key] for r in rows])) for key in keys}


def by_width(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Accuracies by width, and the middle one of the ratios of joint costs."""
    widths = dict.fromkeys(r["width"] for r in rows)
    some = {w: sweep.select(rows, width=w) for w in widths}
    reached = [
        {name: interval([r[name] for r in of]) for name in ("random", "T2")} for of in some.values()
    ]
    ratios = [np.median([number(r, "joint cost ÷ random") for r in of]) for of in some.values()]
    found = zip(some, reached, ratios, strict=True)
    return [{"units": w} | both | {"joint cost, T2 ÷ random": f"{r:.3g}"} for w, both, r in found]


NUMBERS: dict[str, Callable[[Row], float]] = {
    "T2 always loses": lambda r: 1.0,
    "cross terms ÷ promise": lambda r: -r["cross"] / r["promised"],
    "gradient": lambda r: r["gradient"],
    "agreement": lambda r: r["agreement"],
    "coherence": lambda r: r["coherence"],
    "mean push ÷ random": lambda r: r["push T2"] / r["push random"],
    "joint cost ÷ random": lambda r: r["joint T2"] / r["joint random"],
}


def scoreboard(known: Sequence[Row], unseen: Sequence[Row]) -> list[dict[str, Any]]:
    """How often each number is right, with its threshold from the known networks.

    The share is a mean over the kinds of networks: those of one kind are alike.
    """
    kinds = [sweep.select(unseen, net=net) for net in dict.fromkeys(r["net"] for r in unseen)]
    tried = [(name, name, best_threshold(known, name)) for name in NUMBERS]
    tried.append(("the same, threshold 1", "joint cost ÷ random", 1.0))
    board = []
    for label, key, threshold in tried:
        right = [f"{hits(rows, key, threshold).sum()} of {len(rows)}" for rows in (known, unseen)]
        share = interval([hits(kind, key, threshold).mean() for kind in kinds])
        board.append({"number": label, "known": right[0], "others": right[1], "share": share})
    return board


def over_kinds(rows: Sequence[Row], one: str, other: str) -> Interval:
    """What one criterion has more than another, network by network, and then as a mean over the kinds."""
    kinds = dict.fromkeys(r["net"] for r in rows)
    return interval(
        [np.mean([r[one] - r[other] for r in sweep.select(rows, net=net)]) for net in kinds]
    )


def halves(tests: Sequence[Row], parts: Sequence[Row], net: str) -> dict[str, float]:
    """Accuracy at random, after T2's removals, after their mean shift alone, and after the rest alone."""
    keys = {"T2": "T2", "mean shift alone": "mean alone", "all but the mean shift": "rest alone"}
    some = sweep.select(tests, net=net)
    chance = [r["random: accuracy"] for r in sweep.select(parts, net=net)]
    found = {label: float(np.mean([r[key] for r in some])) for label, key in keys.items()}
    return {"random": float(np.mean(chance))} | found


def column(rows: Sequence[Row], name: str) -> dict[str, Interval]:
    """One column of a saved table, over the networks."""
    return {"test accuracy": interval([r[name] for r in rows])}


def less(rows: Sequence[Row], one: str, other: str, name: str) -> Interval:
    """What one way of pruning has more than another in a column, network by network."""
    pairs = [[r[name] for r in sweep.select(rows, way=way)] for way in (one, other)]
    return interval(np.subtract(pairs[0], pairs[1]))


def repaired(rows: Sequence[Row], name: str) -> dict[str, Interval]:
    """The mean accuracy of a criterion as it is, with means restored, with means and spreads."""
    labels = ("pruned", "means", "means and spreads")
    return {
        label: interval([r[name + how] for r in rows])
        for label, how in zip(labels, HOW, strict=True)
    }


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
