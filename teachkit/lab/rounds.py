"""The one prune–retrain loop: choose the masks of a round, cut, train what is left, record, repeat.

Every recipe of the course is this loop: ``obd.recipe`` and ``schedule.gradual`` choose by a criterion
and a sparsity, ``magnitude.han`` by a quality. With a file, a loop that was interrupted goes on.
"""

import inspect
import platform
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from teachkit import __version__
from teachkit.core import bars, checks, door, ranking, weights
from teachkit.core.types import Batch, Criterion, Data, Loss, Masks
from teachkit.lab import saving
from teachkit.lab.evaluation import accuracy
from teachkit.lab.fingerprint import describe
from teachkit.lab.training import fit

DEFAULTS = {  # of the options that ``retrain`` passes on
    name: parameter.default
    for name, parameter in inspect.signature(fit).parameters.items()
    if name not in ("model", "data", "epochs", "masks", "threshold", "seed", "progress")
}
Choose = Callable[[nn.Module, Batch, float], Masks]
"""(model, training batch, what the round asks for) -> the masks of the round."""


class Round(NamedTuple):
    """The record of one round: its masks, test accuracies, and what it asked of ``choose``."""

    sparsity: float
    pruned: float  # the accuracy after the cut
    retrained: float
    kept: dict[str, int]  # by tensor
    asked: float


class Run(NamedTuple):
    """A pruned network, its masks, and how it came about."""

    model: nn.Module
    masks: Masks
    steps: list[Round]


def by_criterion(criterion: Criterion, loss: Loss = cross_entropy, scope: str = "global") -> Choose:
    """The rule that cuts the weights of least score, down to the sparsity that a round asks for.

    Scores are computed anew in each round. What is zero stays zero and counts as removed, so the
    masks may be sparser than asked. For the scope see ``masks.keep_top``.
    """

    def choose(model: nn.Module, batch: Batch, sparsity: float) -> Masks:
        scores = ranking.complete(criterion(model, batch, loss), model)
        ranked = ranking.zeros_last(scores, model)
        return weights.combine(ranking.keep_top(ranked, sparsity, scope), weights.nonzero(model))

    return choose


def retrain(
    model: nn.Module,
    data: Data,
    choose: Choose,
    steps: Sequence[float],
    *,
    epochs: int | Sequence[int],
    loss: Loss = cross_entropy,
    threshold: float = 0.5,
    seed: int = 0,
    file: Path | str | None = None,
    progress: bool = True,
    **options: Any,
) -> Run:
    """For each step: choose masks, cut, and train with the masks held.

    Args:
        model: a trained network; it is unchanged.
        data: training data, and test data for the record.
        choose: the masks of a round, e.g. :func:`by_criterion`.
        steps: what each round asks of ``choose``: a sparsity, or Han's quality.
        epochs: passes over the training data in each round, or one number for each.
        loss: a mean loss to train with.
        threshold: for a single output, see ``evaluation.evaluate``.
        seed: seed of the order of the samples; each round takes the next.
        file: where the state is kept after each round; a run that was interrupted goes on from it.
            A file of another run is refused, and the difference named: another network, data,
            loss, optimizer, rule or number, see ``lab.fingerprint``; so is a damaged one. With
            something whose sameness a file cannot tell the run does not begin.
        progress: show progress bars over the rounds and in each where it takes long.
        options: batch_size, optimizer, scheduler, … of ``training.fit``.

    """
    if not isinstance(data, Data):
        raise TypeError(f"data must be lab.data.Data(train, test), got {type(data).__name__}")
    passes = epochs if isinstance(epochs, Sequence) else [epochs] * len(steps)
    plan = [(float(step), int(n)) for step, n in zip(steps, passes, strict=True)]
    seed, options = checks.whole("seed", seed), {"loss": loss, **options}
    run = Run(weights.apply(model, {}), weights.keep_all(model), [])
    path = None if file is None else Path(file)
    if path is not None:
        told = {"asked": [step for step, _ in plan], "epochs": [n for _, n in plan], "seed": seed}
        fixed = describe(software=_software(), model=model, data=data, threshold=threshold, **told)
        moving = {**DEFAULTS, **options, "choose": choose}
        run = _load(path, run, fixed | describe(**moving))
    for r in bars.bar(range(len(run.steps), len(plan)), "rounds", show=progress):
        given = {"epochs": plan[r][1], "seed": seed + r, "progress": progress, **options}
        run = _round(run, data, choose, plan[r][0], threshold, given)
        if path is not None:
            _save(path, run, fixed | describe(**moving))
    return run


def _round(
    run: Run, data: Data, choose: Choose, step: float, threshold: float, options: dict[str, Any]
) -> Run:
    masks = choose(run.model, data.train, step)
    cut = weights.apply(run.model, masks)
    trained, _ = fit(cut, data.train, masks=masks, **options)
    before, after = (accuracy(net, data.test, threshold=threshold) for net in (cut, trained))
    kept = {name: ranking.count(mask) for name, mask in masks.items()}
    record = Round(ranking.sparsity(masks), before, after, kept, step)
    return Run(trained, masks, [*run.steps, record])


def _software() -> dict[str, str]:
    """What else decides about the bytes of a result; an older file is not gone on with by a newer one."""
    mine = {"python": platform.python_version(), "teachkit": __version__}
    return mine | {"torch": torch.__version__, "numpy": np.__version__}


def _save(path: Path, run: Run, known: dict[str, str]) -> None:
    steps = [tuple(step) for step in run.steps]
    state = {"weights": run.model.state_dict(), "masks": run.masks, "steps": steps}
    saving.save(path, {"known": known, **state})


def _load(path: Path, start: Run, known: dict[str, str]) -> Run:
    """The state in the file, or the start where there is none."""
    if not path.exists():
        return start
    state = saving.load(path)
    saving.compare(path, state["known"], known)
    try:
        start.model.load_state_dict(state["weights"])
        masks = checks.masks(state["masks"], start.masks)
        if set(masks) != set(start.masks):
            raise ValueError(f"its masks are of {sorted(masks)}, not of {sorted(start.masks)}")
        steps = [Round(*step) for step in state["steps"]]
    except (RuntimeError, TypeError, ValueError) as error:
        raise saving.unreadable(path, f"{type(error).__name__}: {error}") from error
    masks = {name: mask.to(start.masks[name].device) for name, mask in masks.items()}
    return Run(start.model.eval(), masks, steps)


door.hold(globals())
