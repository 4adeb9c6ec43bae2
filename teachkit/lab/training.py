"""Train a network: any torch optimizer, masks that hold, a penalty, a hook, a history."""

import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from teachkit.core import bars, checks, door
from teachkit.core.copies import independent_copy
from teachkit.core.objective import FEW, measured, objective
from teachkit.core.types import Batch, Data, Loss, Masks
from teachkit.lab.evaluation import accuracy


class History(NamedTuple):
    """One entry per epoch: the mean training loss seen, and the test accuracy where there is a test.

    The loss is averaged while the weights move, so it lags behind an evaluation after the epoch.
    """

    loss: list[float]
    accuracy: list[float]


Adam = partial(torch.optim.Adam, lr=1e-3)
Penalty = Callable[[nn.Module], Tensor]
Removed = list[tuple[nn.Parameter, Tensor]]


def fit(
    model: nn.Module,
    data: Data | Batch,
    *,
    epochs: int = 30,
    batch_size: int = 64,
    optimizer: Callable[[Iterable[Any]], Optimizer] = Adam,
    groups: Callable[[nn.Module], list[dict[str, Any]]] | None = None,
    loss: Loss = cross_entropy,
    masks: Masks | None = None,
    penalty: Penalty | None = None,
    after_step: Callable[[nn.Module, int], None] | None = None,
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    threshold: float = 0.5,
    seed: int = 0,
    progress: bool = True,
) -> tuple[nn.Module, History]:
    """Return a trained copy of the model, in evaluation mode, and its history.

    Minimises (1/N) Σₙ ℓ(f_θ(xₙ), yₙ) + penalty(model) by mini-batches drawn without replacement.
    The model given is unchanged. The same seed gives the same bytes. Samples are moved to the model's
    device a batch at a time; parameters with ``requires_grad=False`` stay as they are.

    Args:
        model: any module.
        data: Data (then the test accuracy is recorded after each epoch) or one batch (x, y). The
            targets may be whatever the loss takes, e.g. probabilities (n, C) for a distillation; those
            of the test data are class numbers or probabilities.
        epochs: passes over the training data; 0 returns a copy.
        batch_size: samples a step.
        optimizer: makes the optimizer from the parameters, e.g. ``partial(torch.optim.SGD, lr=0.1)``.
        groups: from the copy that is trained to parameter groups, as torch's optimizers take them, e.g.
            ``lambda net: [{"params": net.gates, "lr": 0.1}, {"params": net.weights}]``.
        loss: a mean loss.
        masks: weights that are False here are zero after every step, whatever the optimizer does.
        penalty: a term added to the loss of each step, e.g. an L1 norm.
        after_step: called with the model and the number of steps so far, from 1. It may change the
            model; the masks hold before it and after it.
        scheduler: makes a learning-rate schedule from the optimizer; stepped once an epoch.
        threshold: for a single output, see ``evaluation.evaluate``.
        seed: seed of the order of the samples and of any dropout.
        progress: show a progress bar where it takes long, see ``core.bars``.

    """
    train, test = data if isinstance(data, Data) else (data, None)
    x, _ = checks.batch(train)
    checks.whole("epochs", epochs)
    checks.whole("batch_size", batch_size, 1)
    checks.whole("seed", seed)
    trained = independent_copy(checks.model(model, x))
    params = dict(trained.named_parameters())
    held = checks.masks(masks or {}, params)
    removed = [(params[name], ~mask.to(params[name].device)) for name, mask in held.items()]
    history, steps = History([], []), itertools.count(1)
    with torch.random.fork_rng({p.device for p in params.values() if p.is_cuda}):
        objective(trained, next(_parts(train, FEW, next(iter(params.values()), x).device)), loss)
        torch.manual_seed(seed)
        _zero(removed)
        free = [p for p in params.values() if p.requires_grad]
        stepper = optimizer(free if groups is None else groups(trained))
        rate = scheduler(stepper) if scheduler else None
        _check(stepper, rate)
        for _ in bars.bar(range(epochs), "epochs", show=progress):
            trained.train()
            total = 0.0
            for part in _parts(train, batch_size, next(iter(params.values()), x).device):
                total += len(part[0]) * _step(trained, part, stepper, loss, penalty, removed)
                if after_step is not None:
                    after_step(trained, next(steps))
                    _zero(removed)
            history.loss.append(total / len(x))
            if rate:
                rate.step()
            if test is not None:
                history.accuracy.append(accuracy(trained, test, threshold=threshold))
    trained.zero_grad()  # the last step's gradients are nobody's
    return trained.eval(), history


def _check(stepper: object, rate: object) -> None:
    if not isinstance(stepper, Optimizer):
        raise TypeError(f"optimizer must make a torch.optim.Optimizer, got {stepper!r}")
    if not (rate is None or isinstance(rate, LRScheduler)):
        raise TypeError(f"scheduler must make a torch learning-rate schedule, got {rate!r}")


def _parts(train: Batch, size: int, device: torch.device) -> Iterator[Batch]:
    """Every sample once, in an order of chance."""
    x, y = train
    for rows in torch.split(torch.randperm(len(x), device="cpu"), size):
        yield x[rows.to(x.device)].to(device), y[rows.to(y.device)].to(device)


@torch.no_grad()
def _zero(removed: Removed) -> None:
    for parameter, gone in removed:
        parameter.masked_fill_(gone, 0.0)
        if parameter.grad is not None:
            parameter.grad.masked_fill_(gone, 0.0)


def _step(
    model: nn.Module,
    part: Batch,
    optimizer: Optimizer,
    loss: Loss,
    penalty: Penalty | None,
    removed: Removed,
) -> float:
    """One step of any torch optimizer; returns the data loss before it."""
    seen: list[float] = []
    x, y = part

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = measured(loss, model(x), y)
        seen.append(float(value.detach()))
        objective = value if penalty is None else value + penalty(model)
        objective.backward()  # type: ignore[no-untyped-call]
        _zero(removed)  # the gradient too: an L-BFGS search direction then never leaves the mask
        return objective

    optimizer.step(closure)  # type: ignore[arg-type]
    _zero(removed)
    return seen[0]


door.hold(globals())
