"""The one prune–retrain loop: choose the masks of a round, cut, train what is left, record, repeat.

Every recipe of the course is this loop: ``obd.recipe`` and ``schedule.gradual`` choose by a criterion
and a sparsity, ``magnitude.han`` by a quality. With a file, a loop that was interrupted goes on.
"""

import hashlib
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from tqdm.auto import tqdm

from teachkit.core import checks, door, files, ranking, weights
from teachkit.core.types import Batch, Criterion, Data, Loss, Masks
from teachkit.lab.evaluation import accuracy
from teachkit.lab.training import fit

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
    settings: Mapping[str, Any] | None = None,
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
        settings: with a file, what decides about ``choose``: numbers, words and functions. A file of
            a run with others is refused; so is one of another network, of other data or options. Two
            lambdas written in one place are taken for the same function.
        progress: show a progress bar over the rounds, and in each.
        options: batch_size, optimizer, scheduler, … of ``training.fit``.

    """
    if not isinstance(data, Data):
        raise TypeError(f"data must be lab.data.Data(train, test), got {type(data).__name__}")
    passes = epochs if isinstance(epochs, Sequence) else [epochs] * len(steps)
    plan = [(float(step), int(n)) for step, n in zip(steps, passes, strict=True)]
    seed, options = checks.whole("seed", seed), {"loss": loss, **options}
    run = Run(weights.apply(model, {}), weights.keep_all(model), [])
    if file is not None:
        known = _known(run.model, data, {"plan": plan, "seed": seed, **options, **(settings or {})})
        run = _load(Path(file), run, known)
    for r in tqdm(range(len(run.steps), len(plan)), "rounds", disable=not progress, leave=False):
        given = {"epochs": plan[r][1], "seed": seed + r, "progress": progress, **options}
        run = _round(run, data, choose, plan[r][0], threshold, given)
        if file is not None:
            _save(Path(file), run, known)
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


def _known(model: nn.Module, data: Data, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What a run in a file is known by: settings in words, its network and its data."""
    start = _fingerprint(*model.state_dict().values())
    words = {name: _words(value) for name, value in settings.items()}
    return words | {"start": start, "data": _fingerprint(*data.train, *data.test)}


def _save(path: Path, run: Run, known: dict[str, Any]) -> None:
    steps = [tuple(step) for step in run.steps]
    state = {"weights": run.model.state_dict(), "masks": run.masks, "steps": steps}
    with files.writing(path) as part:
        torch.save({"settings": known, **state}, part)


def _load(path: Path, start: Run, known: dict[str, Any]) -> Run:
    """The state in the file, or the start where there is none."""
    if not path.exists():
        return start
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
        there, steps = state["settings"], [Round(*step) for step in state["steps"]]
    except Exception as error:  # whatever torch and pickle say of a file that is something else
        raise ValueError(
            f"{path} is not a run of gradual ({type(error).__name__}: {error}); name another file"
        ) from error
    if there != known:
        raise ValueError(
            f"{path} is of a run with {there}, not {known}; name another file or delete this one"
        )
    start.model.load_state_dict(state["weights"])
    masks = {name: mask.to(start.masks[name].device) for name, mask in state["masks"].items()}
    return Run(start.model.eval(), masks, steps)


def _fingerprint(*tensors: Any) -> str:
    """A digest of every number: another network, or other data, does not go on from this file."""
    digest = hashlib.sha256()
    for tensor in tensors:
        if isinstance(tensor, Tensor):
            flat = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(flat.view(torch.uint8).numpy().data)
        else:  # the extra state of a module of the user's
            digest.update(repr(tensor).encode())
    return digest.hexdigest()


def _words(value: Any) -> Any:
    """A setting as a file can hold it: functions, classes and partials in words, also in a list."""
    if isinstance(value, list):
        return [_words(each) for each in value]
    if not callable(value):
        return value
    if isinstance(value, partial):
        given = [*map(repr, value.args), *(f"{k}={v!r}" for k, v in sorted(value.keywords.items()))]
        return f"{_words(value.func)}({', '.join(given)})"
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}"


door.hold(globals())
