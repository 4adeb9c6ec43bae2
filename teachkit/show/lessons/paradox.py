"""Lesson 11: what its explorers draw, and its exercises; its other figures are in ``paradox_figures``."""

from functools import cache

import numpy as np
import torch
from torch import Tensor, nn

from teachkit import masks, paradox, taylor
from teachkit.core.types import Batch, Data, Masks
from teachkit.lab.evaluation import evaluate
from teachkit.show import plots, styles
from teachkit.show.lessons.paradox_figures import CHANGE, answers_of, bars
from teachkit.show.lessons.paradox_tasks import TASKS as TASKS
from teachkit.show.lessons.paradox_tasks import TRIALS as TRIALS
from teachkit.show.pictures import Picture
from teachkit.show.prepared import Draw, Scene

STEPS = (np.arange(61) / 60) ** 3  # close together at the start of the way
DRAWS = 5
SHARES = [0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


@Scene
def along(model: nn.Module, data: Data, kept: Masks) -> Draw:
    """The loss on the way to the pruned network, and what the network says at a share α of the way."""
    step = masks.change(model, kept)
    way = taylor.along(model, data.train, step, STEPS.tolist())
    curves = {"first order": way.first, "second order": way.second, "truth": way.actual}
    top = 1.1 * float(way.actual.abs().max())

    @cache
    def said(alpha: float) -> tuple[np.ndarray, float]:
        at = masks.apply(model, {})
        for name, part in step.items():
            at.get_parameter(name).data += alpha * part
        return answers_of(at, data.test[0]), evaluate(at, data.test).accuracy

    def draw(alpha: float) -> Picture:
        figure, (left, right) = plots.canvas(2, width=8.0, height=3.0)
        plots.draw(left, STEPS, curves)
        left.set_ylim(-0.03, top)
        left.set_xscale("function", functions=(np.cbrt, lambda a: a**3))
        left.set_xticks([0, 0.01, 0.1, 0.3, 1], ["0", ".01", ".1", ".3", "1"])
        left.set_yscale("symlog", linthresh=0.02, linscale=0.6)
        now = float(np.interp(alpha, STEPS, way.actual))
        left.plot([alpha], [now], **styles.look("goes").point, markersize=9)
        left.axhline(0, **plots.THIN)
        left.legend(frameon=False, fontsize=8, loc="upper left")
        counts, right_share = said(alpha)
        bars(right, counts, f"test accuracy {right_share:.2f}")
        says = f"α = {alpha:g}: the loss changes by {now:+.3f}"
        alt = (
            f"{says}. Left: the change of the loss against the share α of the way. Right: how often "
            f"the network gives each answer; most often {counts.argmax()}, {counts.max():.0%} of the "
            f"images; test accuracy {right_share:.2f}."
        )
        return plots.finish(figure, alt, "share α of the way", CHANGE, says=says)

    return draw


@Scene
def dial(model: nn.Module, data: Data, kept: Masks) -> Draw:
    """Random weights, chosen so that a share of them pushes its unit the way the given set does."""
    (x, _), test = data
    found = {share: _directed(model, x, test, kept, share) for share in SHARES}
    means = [float(np.mean(reached)) for _, reached, _ in found.values()]

    def draw(agreeing: float) -> Picture:
        share = min(SHARES, key=lambda at: abs(at - agreeing))
        counts, reached, moved = found[share]
        figure, (left, right) = plots.canvas(2, width=8.0, height=2.9)
        left.plot(SHARES, means, color="0.6", linewidth=1, linestyle="-")
        left.plot([share] * DRAWS, reached, **styles.look("goes").point)
        left.set_ylim(0, 1)
        bars(right, counts, f"mean shift of the outputs: {moved:.1f}")
        mean = float(np.mean(reached))
        says = f"{100 * share:.0f} % agree: test accuracy {mean:.2f}"
        alt = (
            f"Random sets of 5 % of the weights, of which {100 * share:.0f} % push their unit the way T2's "
            f"choice does: test accuracy {mean:.2f}, mean of {DRAWS} draws; the outputs shift by "
            f"{moved:.1f}; the most frequent answer is given to {counts.max():.0%} of the images."
        )
        return plots.finish(figure, alt, "share that agrees", "test accuracy", says=says)

    return draw


def _directed(
    model: nn.Module, x: Tensor, test: Batch, kept: Masks, share: float
) -> tuple[np.ndarray, list[float], float]:
    """Answers, accuracies and shift of the outputs of random sets that agree so far."""
    dice = torch.Generator().manual_seed(31)
    sets = [paradox.directed(model, x, kept, share, dice) for _ in range(DRAWS)]
    nets = [masks.apply(model, each) for each in sets]
    with torch.no_grad():
        moved = [float((net(test[0]) - model(test[0])).mean(0).norm()) for net in nets]
    counts = np.mean([answers_of(net, test[0]) for net in nets], axis=0)
    return counts, [evaluate(net, test).accuracy for net in nets], float(np.mean(moved))
