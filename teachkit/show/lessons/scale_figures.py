"""Lesson 14: its figures that stand still, and the few numbers that they need."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.patches import FancyBboxPatch
from torch import Tensor, nn

from teachkit import scale
from teachkit.lab import sweep
from teachkit.lab.curves import Interval, interval
from teachkit.lab.sweep import Row
from teachkit.show import plots, styles
from teachkit.show.pictures import Picture

WAYS: dict[str, dict[str, Any]] = {
    "magnitude": {"method": "magnitude"},
    "Wanda": {"method": "wanda"},
    "SparseGPT": {"method": "sparsegpt"},
    "magnitude + least squares": {"method": "magnitude", "refit": True},
    "OBS": {"method": "obs"},
}


def box(axes: Axes, x: float, y: float, words: str, colour: str, width: float = 1.5) -> None:
    """A box with rounded corners and words in it."""
    shape = FancyBboxPatch((x - width / 2, y - 0.3), width, 0.6, boxstyle="round,pad=0.06")
    shape.set(facecolor="white", edgecolor=colour, linewidth=1.6, zorder=2)
    axes.add_patch(shape)
    axes.text(x, y, words, ha="center", va="center", fontsize=9, zorder=3)


def arrow(axes: Axes, start: tuple[float, float], end: tuple[float, float]) -> None:
    """An arrow between two points."""
    look = {"arrowstyle": "-|>", "color": "0.3", "linewidth": 1.2}
    axes.annotate("", end, start, arrowprops=look)


def anatomy() -> Picture:
    """A transformer: tokens, a stream that passes through the blocks, and what is added to it."""
    figure, (axes,) = plots.canvas(width=8.4, height=3.1)
    axes.plot([1.9, 10.1], [0, 0], color=styles.SKY, linewidth=9, solid_capstyle="round", zorder=0)
    axes.text(3.05, -0.42, "stream h: 128 numbers for each place", fontsize=9, color="0.3")
    box(axes, 0.55, 0, "tokens\nR O M E O", "0.4", 1.2)
    box(axes, 2.2, 0, "embedding\n+ place", styles.BLUE, 1.2)
    for x, words, colour in (
        (4.3, "attention\nq k v o", styles.VERMILION),
        (7.0, "MLP\nup, down", styles.GREEN),
    ):
        box(axes, x, 1.35, words, colour)
        arrow(axes, (x - 1.1, 0.1), (x - 0.8, 1.15))
        arrow(axes, (x + 0.8, 1.15), (x + 1.1, 0.1))
        axes.text(x + 1.1, 0, "+", ha="center", va="center", fontsize=13, zorder=3)
        axes.text(x - 1.15, 0.7, "norm", ha="right", fontsize=8, color="0.4")
    axes.plot([2.95, 2.95, 8.4, 8.4], [1.7, 1.95, 1.95, 1.7], "-", color="0.4", linewidth=1)
    axes.text(5.7, 2.05, "one block, four times over", ha="center", fontsize=9)
    box(axes, 9.7, 0, "norm,\noutput", styles.PURPLE, 0.9)
    box(axes, 11.4, 0, "chances of 65\nnext tokens", "0.4", 1.5)
    for start, end in ((1.2, 1.5), (10.2, 10.55)):
        arrow(axes, (start, 0), (end, 0))
    axes.set(xlim=(-0.3, 12.4), ylim=(-0.75, 2.4), xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.grid(False)
    alt = (
        "A transformer from left to right: tokens, embedding, a stream that passes below attention "
        "and MLP, each of which reads it after a norm and adds to it, then the chances of the next token."
    )
    return Picture(figure, alt)


def losses(rows: Sequence[Row], ways: Sequence[str], dense: float) -> Picture:
    """The loss by sparsity, a curve with its interval for each method; random is off the scale."""
    plain = [row for row in rows if row["sparsity"] != "2:4"]
    found = {way: over_seeds(sweep.select(plain, way=way), "sparsity") for way in ways}
    at = sorted({row["sparsity"] for row in plain})
    told = "; ".join(f"{w} {', '.join(f'{m:.2f}' for m in i.mean)}" for w, i in found.items())
    alt = f"Loss of the next character at sparsity {', '.join(map(str, at))}: {told}; dense {dense:.2f}."
    return plots.lines(
        at, found, alt=alt, level=("dense", dense), xlabel="sparsity",
        ylabel="loss of the next character", xticks=at,
    )  # fmt: skip


def over_seeds(rows: Sequence[Row], by: str, name: str = "loss") -> Interval:
    """The interval of a column over the seeds at each value of another."""
    return interval(sweep.column(rows, name, by=by, over="seed"))


def column(rows: Sequence[Row], by: str, name: str = "loss") -> dict[Any, Interval]:
    """The same by value, in the order of the rows."""
    values = list(dict.fromkeys(row[by] for row in rows))
    return {at: interval([row[name] for row in rows if row[by] == at]) for at in values}


def paired(rows: Sequence[Row], way: str, other: str, by: str = "sparsity") -> dict[Any, Interval]:
    """One way's loss less another's on the same models, by another column."""
    found = {}
    for at in dict.fromkeys(row[by] for row in rows):
        some = [sweep.select(rows, way=name, **{by: at}) for name in (way, other)]
        less = [a["loss"] - b["loss"] for a, b in zip(*some, strict=True)]
        found[at] = interval(less)
    return found


def stretched(rows: Sequence[Row], untouched: Sequence[Row], ways: Sequence[str]) -> Picture:
    """The loss at half of the weights by the spread of the inputs; at 0 the model is as trained."""
    found = {}
    for way in ways:
        first = [{**r, "spread": 0.0} for r in sweep.select(untouched, way=way, sparsity=0.5)]
        found[way] = over_seeds(first + sweep.select(rows, way=way), "spread")
    dense = float(np.mean([row["dense"] for row in rows]))
    at = [0.0, *sorted({row["spread"] for row in rows})]
    told = "; ".join(f"{w} {', '.join(f'{m:.2f}' for m in i.mean)}" for w, i in found.items())
    alt = f"Loss with half of the weights at spreads {at}: {told}; dense {dense:.2f} everywhere."
    return plots.lines(
        at, found, alt=alt, level=("dense", dense), xlabel="spread σ of the inputs' factors",
        ylabel="loss of the next character", xticks=at,
    )  # fmt: skip


def inputs_of(net: nn.Module, layer: str, tokens: Tensor) -> Tensor:
    """What a layer reads, one row for each place, (n, in)."""
    seen: list[Tensor] = []
    hook = net.get_submodule(layer).register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    try:
        with torch.no_grad():
            net(tokens)
    finally:
        hook.remove()
    return seen[0].flatten(0, -2)


def alone(W: Tensor, X: Tensor, way: str, sparsity: float, **more: Any) -> Tensor:
    """The weights of one layer, pruned on its inputs."""
    layer = nn.Linear(W.shape[1], len(W), bias=False, device=W.device, dtype=W.dtype)
    layer.weight.data = W.clone()
    options = {"sparsity": sparsity, "progress": False} | WAYS[way] | more
    chain, _ = scale.prune(nn.Sequential(layer), X, **options)
    return chain.get_parameter("0.weight").detach()


def layer_errors(W: Tensor, X: Tensor, ways: Sequence[str]) -> Picture:
    """The share of one layer's output that is lost, by sparsity and method."""
    at = [0.3, 0.5, 0.7, 0.9]
    found = {w: [scale.output_error(W, alone(W, X, w, s), X) for s in at] for w in ways}
    told = "; ".join(f"{w} {', '.join(f'{e:.2g}' for e in each)}" for w, each in found.items())
    alt = f"Share of the output of one layer that is lost, at sparsity .3, .5, .7 and .9: {told}."
    return plots.lines(
        at, found, alt=alt, xlabel="sparsity", ylabel="share of the output lost",
        yscale="log", xticks=at,
    )  # fmt: skip


def halfway(W: Tensor, X: Tensor, at: int, shown: int = 24) -> Picture:
    """What the pass has done to the first rows of a matrix when it has come to a column."""
    H = X.T @ X
    H = H + 0.01 * H.diagonal().mean() * torch.eye(len(H)).to(H)
    U = torch.linalg.cholesky(torch.linalg.inv(H), upper=True)
    w = W.clone()
    keep = w**2 / U.diagonal() ** 2
    keep = keep > keep.median()
    for j in range(at):
        error = torch.where(keep[:, j], 0.0, w[:, j] / U[j, j])
        w = w - torch.outer(error, U[j])
        w[:, j] = w[:, j] * keep[:, j]
    gone = ~keep & (torch.arange(len(H), device=keep.device) < at)
    moved = torch.where(gone, torch.nan, w - W)[:shown, : 2 * at]
    figure, axes = plots.canvas(2, width=8.4, height=2.7)
    titles = f"weights after {at} columns", "by how much the others have moved"
    for each, title, shade in zip(axes, titles, (w[:shown, : 2 * at], moved), strict=True):
        span = float(shade.nan_to_num().abs().max())
        image = each.imshow(
            shade, cmap="RdBu", vmin=-span, vmax=span, interpolation="nearest", aspect="auto"
        )
        figure.colorbar(image, ax=each)
        each.axvline(at - 0.5, color="black", linewidth=1.2)
        each.set(title=title, xticks=[], yticks=[], xlabel="inputs", facecolor="0.75")
        each.title.set_fontsize(10)
        each.grid(False)
    zeros, late = (float((~keep[:, some]).double().mean()) for some in (slice(at), slice(-8, None)))
    right = float((w - W)[:, at : 2 * at].square().mean().sqrt() / W.square().mean().sqrt())
    alt = (
        f"SparseGPT half way, the first {shown} outputs: left of the line {zeros:.0%} of the weights of all "
        f"outputs are zero, right of it none, but they have moved by {right:.0%} of their size (root mean "
        f"square). Of the last eight columns {late:.0%} will go."
    )
    return plots.finish(figure, alt, "inputs", "outputs")


def grouped(W: Tensor, X: Tensor, sparsity: float = 0.5) -> dict[str, list[Any]]:
    """The share of one layer's output that is lost, by criterion and by what is compared."""
    found: dict[str, list[Any]] = {"method": [], "whole matrix": [], "within each output": []}
    for way in ("magnitude", "Wanda"):
        found["method"].append(way)
        for name, scope in (("whole matrix", "layer"), ("within each output", "row")):
            pruned = alone(W, X, way, sparsity, scope=scope)
            found[name].append(scale.output_error(W, pruned, X))
    return found


LLAMA = {"width": 8192, "keys": 1024, "inner": 28_672, "blocks": 80}  # Llama-2-70B
TOKENS, SPEED = 128 * 2048, 1e14  # calibrated on, and operations a second


def llama_block() -> int:
    """The weights of one block: q and o, k and v (for eight heads of 128), gate, up and down."""
    width, keys, inner = LLAMA["width"], LLAMA["keys"], LLAMA["inner"]
    return 2 * width**2 + 2 * width * keys + 3 * width * inner


def memory() -> dict[str, list[Any]]:
    """What SparseGPT on Llama-2-70B would have to keep, in GB."""
    block, inner = llama_block(), LLAMA["inner"]
    needed = {"all weights": 2 * LLAMA["blocks"] * block, "one block": 2 * block}
    needed |= {"its inputs": 2 * TOKENS * LLAMA["width"], "norms of down's inputs": 4 * inner}
    needed["XᵀX of down's inputs"] = 4 * inner**2
    head = "16 bits for weights and inputs, 32 for sums"
    return {head: list(needed), "GB": [size / 1e9 for size in needed.values()]}


def minutes() -> float:
    """The arithmetic of it: two runs of each block, the sums XᵀX, an inverse and a pass for ``down``."""
    width, inner = LLAMA["width"], LLAMA["inner"]
    sums = 3 * width**2 + inner**2
    work = TOKENS * (4 * llama_block() + 2 * sums) + 2 * inner**3 + width * inner**2
    return LLAMA["blocks"] * work / SPEED / 60


def shares(W: Mapping[str, Tensor]) -> dict[str, list[Any]]:
    """The matrices of a block, their shapes and weights."""
    names = [name.split(".", 2)[-1].removesuffix(".weight") for name in W]
    shapes = [" × ".join(map(str, w.shape)) for w in W.values()]
    return {"matrix": names, "outputs × inputs": shapes, "weights": [w.numel() for w in W.values()]}
