"""Lesson 13: what its explorers draw."""

import torch
from torch import Tensor, nn

from teachkit import compression, masks
from teachkit.core.types import Batch
from teachkit.lab.evaluation import accuracy
from teachkit.show import plots
from teachkit.show.lessons.compression_tasks import TASKS as TASKS
from teachkit.show.lessons.compression_tasks import TRIALS as TRIALS
from teachkit.show.pictures import Picture
from teachkit.show.prepared import Draw, Scene

WAYS = ("nearest", "nearest, clipped", "GPTQ")
COARSE = 16  # at most so many values of a grid are drawn as lines


@Scene
def bits(net: nn.Module, batch: Batch, test: Batch) -> Draw:
    """The weights of the first layer on a grid: their histogram with its values, one row as a picture.

    Every layer is rounded, row by row; all is ready before a slider moves.
    """
    name, whole = next(iter(masks.prunable(net).items()))
    made = {(b, way): _rounded(net, batch, test, b, way) for b in range(2, 9) for way in WAYS}
    row = int(whole.detach().norm(dim=1).argmax())

    def draw(bits: int, way: str) -> Picture:
        less, right = made[bits, way]
        return _drawn(whole.detach(), less[name], row, bits, way, right)

    return draw


def _rounded(
    net: nn.Module, batch: Batch, test: Batch, bits: int, way: str
) -> tuple[dict[str, Tensor], float]:
    small, _ = compression.round_layers(
        net,
        bits,
        batch if way == "GPTQ" else None,
        clip="best" if way.endswith("clipped") else 1.0,
    )
    return {n: w.detach() for n, w in masks.prunable(small).items()}, accuracy(small, test)


def _drawn(W: Tensor, less: Tensor, row: int, bits: int, way: str, right: float) -> Picture:
    """The histogram of one row's weights, where they went, and the row before and after."""
    figure, (left, before, after) = plots.canvas(3, width=9.2, height=3.4)
    values = less[row].unique()  # type: ignore[no-untyped-call]
    left.hist(W[row].numpy(), bins=30, **plots.BARS)
    if len(values) <= COARSE:
        for value in values.tolist():
            left.axvline(value, **plots.THIN)
    side = int(W.shape[1] ** 0.5)
    most = float(W[row].abs().max())
    left.set_xlim(-1.08 * most, 1.08 * most)
    for axes, part, title in ((before, W, "before"), (after, less, f"{bits} bits, {way}")):
        shade = part[row, : side * side].reshape(side, side).numpy()
        axes.imshow(shade, cmap="gray", vmin=-most, vmax=most, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.set_title(title, fontsize=10)
    error = float((less - W).norm() / W.norm())
    says = (
        f"{bits} bits, {way}: {len(values)} different weights in this row, relative error of the layer "
        f"{error:.3f}, test accuracy {right:.3f}"
    )
    lines = ", with lines at the values they may take" if len(values) <= COARSE else ""
    alt = (
        f"Left: how the weights of one unit are spread{lines}. "
        f"Middle and right: what the unit looks for in the image, before and after rounding. {says}."
    )
    figure.suptitle(says, fontsize=10)
    return plots.finish(figure, alt, "weight of the unit", "how many")


@Scene
def doubts(teacher: nn.Module, test: Batch) -> Draw:
    """An image, and what the teacher says of it at a temperature: bars over the classes."""
    x, y = test
    with torch.no_grad():
        logits = teacher(x)

    def draw(image: int, temperature: float) -> Picture:
        p = compression.soften(logits[image], temperature)
        figure, (left, bars) = plots.canvas(2, width=8.0, height=3.2)
        left.imshow(x[image, 0].numpy(), cmap="gray_r")
        bars.bar(range(len(p)), p.numpy(), **plots.BARS)
        bars.set(xticks=range(len(p)), xlabel="class", ylabel="soft target", ylim=(0, 1))
        first, second = p.argsort(descending=True)[:2].tolist()
        H = float(-(p * p.clamp(min=1e-300).log2()).sum())
        says = (
            f"T = {temperature:g}: {first} with {float(p[first]):.2f}, {second} with "
            f"{float(p[second]):.2g}; {H:.2f} bits of doubt"
        )
        alt = f"Left: an image of a {int(y[image])}. Right: the teacher's soft targets. {says}."
        figure.suptitle(says, fontsize=10)
        return plots.finish(figure, alt, f"a {int(y[image])}", "", xticks=[], yticks=[])

    return draw
