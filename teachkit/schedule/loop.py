"""The prune–retrain loop for any criterion and any schedule."""

import hashlib
from collections.abc import Callable
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer

from teachkit import masks
from teachkit.core import checks
from teachkit.core.types import Data, Loss, Masks
from teachkit.lab import rounds
from teachkit.lab.rounds import Criterion, Round
from teachkit.lab.training import Adam
from teachkit.schedule.shapes import Schedule


class Run(NamedTuple):
    """A pruned network, its masks, and how it came about."""

    model: nn.Module
    masks: Masks
    steps: list[Round]


def gradual(
    model: nn.Module,
    data: Data,
    criterion: Criterion,
    schedule: Schedule,
    *,
    steps: int,
    epochs: int,
    batch_size: int = 64,
    scope: str = "global",
    loss: Loss = cross_entropy,
    optimizer: Callable[..., Optimizer] = Adam,
    seed: int = 0,
    file: Path | str | None = None,
    progress: bool = True,
) -> Run:
    """Prune to schedule(1), train, prune to schedule(2), train, … to schedule(steps).

    The whole budget is ``epochs``; it is divided over the steps as evenly as whole numbers allow,
    the last and deepest steps taking the remainder. Scores are computed anew before each cut, on the training
    data. What is removed stays removed.

    Args:
        model: a trained network; it is unchanged.
        data: training data, and test data for the record.
        criterion: (model, batch, loss) -> scores; a larger score stays.
        schedule: from the step, 1 … steps, to the sparsity.
        steps: how many cuts.
        epochs: passes over the training data in all.
        batch_size: samples a step of the optimizer.
        scope: "global" or "layer", see ``masks.keep_top``.
        loss: a mean loss.
        optimizer: makes a fresh optimizer for each step.
        seed: seed of the order of the samples; each step takes the next.
        file: where the state is kept after each step; a run that was interrupted goes on from it. Two
            lambdas written in one place are taken for the same criterion or loss.
        progress: show a progress bar in each step.

    Raises:
        ValueError: the schedule falls, or the file is of a run with other settings, or of none.

    """
    plan, seed = _plan(schedule, steps, epochs), checks.whole("seed", seed)
    settings: dict[str, Any] = {}
    if file is not None:
        settings = {
            "plan": plan,
            "batch_size": batch_size,
            "scope": scope,
            "seed": seed,
            "start": _fingerprint(*model.state_dict().values()),
            "data": _fingerprint(*data.train, *data.test),
            "calls": [_words(call) for call in (criterion, loss, optimizer)],
        }
    state = _resume(file, settings, model)
    for t in range(len(state.steps), steps):
        sparsity, passes = plan[t]
        options: dict[str, Any] = {
            "batch_size": batch_size,
            "scope": scope,
            "loss": loss,
            "optimizer": optimizer,
            "progress": progress,
        }
        model, kept, new = rounds.prune_and_retrain(
            state.model, data, criterion, sparsity, epochs=passes, seed=seed + t, **options
        )
        state = Run(model, kept, [*state.steps, new])
        _save(file, settings, state)
    return state


def _plan(schedule: Schedule, steps: int, epochs: int) -> list[tuple[float, int]]:
    """Sparsity and passes over the data of each step."""
    steps, epochs = checks.whole("steps", steps, 1), checks.whole("epochs", epochs)
    levels = [checks.fraction(f"schedule({t})", schedule(t)) for t in range(1, steps + 1)]
    for before, after in pairwise(levels):
        if after < before:
            raise ValueError(f"a schedule must not fall, got {before!r} and then {after!r}")
    return [(s, (epochs + t) // steps) for t, s in enumerate(levels)]


def _save(file: Path | str | None, settings: dict[str, Any], state: Run) -> None:
    if file is None:
        return
    path = Path(file)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    steps = [tuple(step) for step in state.steps]
    content = {"weights": state.model.state_dict(), "masks": state.masks, "steps": steps}
    torch.save({"settings": settings, **content}, part)
    part.replace(path)


def _resume(file: Path | str | None, settings: dict[str, Any], model: nn.Module) -> Run:
    """The state in the file, or the beginning."""
    start = Run(masks.apply(model, {}), masks.keep_all(model), [])
    if file is None or not Path(file).exists():
        return start
    try:
        found = torch.load(file, weights_only=True, map_location="cpu")
        known = found["settings"]
    except Exception as error:  # whatever torch and pickle say of a file that is something else
        raise ValueError(
            f"{file} is not a run of gradual ({type(error).__name__}: {error}); name another file"
        ) from error
    if known != settings:
        raise ValueError(
            f"{file} is of a run with {known}, not {settings}; name another file or delete this one"
        )
    start.model.load_state_dict(found["weights"])
    return Run(start.model.eval(), found["masks"], [Round(*step) for step in found["steps"]])


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


def _words(call: Any) -> str:
    """A function, a class, a partial or an object in words that are the same in the next session."""
    if isinstance(call, partial):
        given = [*map(repr, call.args), *(f"{k}={v!r}" for k, v in sorted(call.keywords.items()))]
        return f"{_words(call.func)}({', '.join(given)})"
    named = call if hasattr(call, "__qualname__") else type(call)
    return f"{named.__module__}.{named.__qualname__}"
