"""Train weights θ and a second set of numbers φ together, write the zeros, and train what is left.

The first phase is one call of :func:`lab.training.fit` on an :class:`engine.sampled.Sampled` network: θ and
φ in parameter groups of their own, a penalty that is let in slowly, a step after the optimizer's. Then the
settled weights are written into an ordinary network. In the second phase, without penalty and without
chance, what is not zero trains on, at a rate that falls; the masks hold.
"""

from collections.abc import Callable, Iterable
from functools import partial
from math import ceil, isfinite
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LinearLR

from teachkit.core import checks
from teachkit.core.copies import caller, still_copy
from teachkit.core.types import Data, Masks
from teachkit.core.weights import prunable
from teachkit.lab.training import History, fit

Result = tuple[nn.Module, Masks, History]


class Start(Protocol):
    """A network that is trained with φ, and becomes an ordinary one; see :mod:`teachkit.engine.sampled`."""

    model: nn.Module
    ramp: Any

    def bake(self) -> tuple[nn.Module, Masks]:
        """The ordinary network, and its masks."""
        ...


def _baked(net: Start) -> tuple[nn.Module, Masks]:
    return net.bake()


def jointly(
    start: Any,
    data: Data,
    *,
    penalty: Callable[[Any], Tensor] | None = None,
    move: Callable[[Any, float], None] | None = None,
    settle: Callable[[Any], tuple[nn.Module, Masks]] = _baked,
    epochs: int = 30,
    finish: float = 0.2,
    warm: float = 0.0,
    rate: float = 1e-3,
    phi_rate: float = 1e-2,
    optimizer: Callable[..., Optimizer] = torch.optim.Adam,
    batch_size: int = 64,
    seed: int = 0,
    on_empty: Literal["refuse", "allow"] = "refuse",
    **options: Any,
) -> Result:
    """The pruned network, its masks, and the history of both phases.

    Args:
        start: the network with φ.
        data: training and test data.
        penalty: a term of the objective, from the network.
        move: called after each step with the network and rate · the share of the penalty that counts.
        settle: from the trained network to an ordinary one and its masks, also of biases or norms.
        epochs: passes over the training data in both phases together.
        finish: the fraction of them that belongs to the second, a whole number of epochs.
        warm: the fraction of the first phase in which the penalty grows from nothing to all of it.
        rate: the learning rate of θ; in the second phase it falls by equal steps.
        phi_rate: that of φ.
        optimizer: a class of torch.optim, or anything that takes parameter groups and ``lr``.
        batch_size: samples a step.
        seed: seed of the order of the samples and of what is drawn; the second phase takes the next.
        on_empty: "refuse" raises where a layer has lost all its weights, "allow" gives it back.
        options: loss, threshold and progress of ``training.fit``.

    Raises:
        ValueError: the training diverged, or it emptied a layer.

    """
    last = round(checks.fraction("finish", finish) * checks.whole("epochs", epochs))
    checks.whole("batch_size", batch_size, 1)
    x = data.train[0][:2]
    caller(
        still_copy(checks.model(start.model, x)), x, start.model
    )  # each weight is the modules' own
    steps = (epochs - last) * ceil(len(data.train[0]) / batch_size)
    start.ramp.steps = checks.fraction("warm", warm) * steps
    make = partial(optimizer, lr=checks.number("rate", rate))
    checks.number("phi_rate", phi_rate)
    options |= {"optimizer": make, "batch_size": batch_size}
    first, before = fit(
        start,
        data,
        epochs=epochs - last,
        groups=lambda net: _groups(net, phi_rate),
        penalty=penalty and (lambda net: net.ramp.share * penalty(net)),
        after_step=partial(_after, move, rate),
        seed=seed,
        **options,
    )
    if not all(map(isfinite, before.loss)):
        raise ValueError(f"training diverged: the loss was {before.loss[-1]} in the end")
    model, kept = settle(first)
    if on_empty == "refuse":
        refuse_empty(kept, prunable(model))
    done, after = finish_with(model, data, kept, last, seed=seed + 1, **options)
    history = History(before.loss + after.loss, before.accuracy + after.accuracy)
    return done, {name: kept[name] for name in prunable(done)}, history


def finish_with(
    model: nn.Module, data: Data, masks: Masks, epochs: int, **options: Any
) -> tuple[nn.Module, History]:
    """Train what the masks keep, at a rate that falls by equal steps to a share 1 / epochs."""
    falling = partial(
        LinearLR, start_factor=1.0, end_factor=1 / max(epochs, 1), total_iters=max(epochs - 1, 1)
    )
    return fit(model, data, epochs=epochs, masks=masks, scheduler=falling, **options)


def _groups(net: nn.Module, phi_rate: float) -> list[dict[str, Any]]:
    model, phi = net.get_submodule("model"), net.get_submodule("phi")
    free = [[p for p in part.parameters() if p.requires_grad] for part in (model, phi)]
    both: list[dict[str, Any]] = [{"params": free[0]}, {"params": free[1], "lr": phi_rate}]
    return [group for group in both if group["params"]]


def _after(
    move: Callable[[Any, float], None] | None, rate: float, net: nn.Module, step: int
) -> None:
    ramp: Any = net.ramp
    ramp.at = step
    if move is not None:
        with torch.no_grad():
            move(net, rate * ramp.share)


def refuse_empty(masks: Masks, names: Iterable[str]) -> None:
    """Raise where nothing is left of a layer."""
    for name in names:
        if not bool(masks[name].any()):
            raise ValueError(
                f"every weight of {name!r} became zero, so that the network gives the same output for "
                "every input; let the penalty be weaker, or say on_empty='allow'"
            )
