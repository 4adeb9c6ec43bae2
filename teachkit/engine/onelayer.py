"""One matrix of a large network, pruned: what each method looks at, what it keeps, what it moves.

A method gets the weights W (out, in) in float64 and, of the inputs X, what it asks for: nothing, the
squared norms ‖x_j‖² (in,), or H = XᵀX (in, in). It gives new weights and a mask. All that is known of a
method stands in one table. The choice of the mask and the update of what it keeps are two questions:
:func:`refitted` gives the best update to any mask.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from teachkit.engine.amounts import Pattern, Scope, keep, zero_first
from teachkit.engine.refit import choose, refit_gram, single_pass, trace_gram
from teachkit.engine.surgeon import Trace

Needs = Literal["nothing", "norms", "gram"]
Pruned = tuple[Tensor, Tensor]


class Task(NamedTuple):
    """What a method is given beside the weights; ``sums`` is what it asked for of the inputs."""

    asked: float | Pattern
    scope: Scope
    sums: Tensor
    damping: float
    dice: torch.Generator


class Method(NamedTuple):
    """A function of weights and task, what it needs, and the scope it was published with."""

    prune: Callable[[Tensor, Task], Pruned]
    needs: Needs
    scope: Scope
    scopes: tuple[Scope, ...] = ("row", "layer")


def by_random(W: Tensor, task: Task) -> Pruned:
    """Chance."""
    drawn = torch.rand(W.shape, generator=task.dice, device=task.dice.device).to(W)
    return _cut(W, drawn, task)


def by_magnitude(W: Tensor, task: Task) -> Pruned:
    """|w_ij|: as if all inputs were of one size and had nothing to do with each other."""
    return _cut(W, W.abs(), task)


def by_wanda(W: Tensor, task: Task) -> Pruned:
    """|w_ij| ‖x_j‖: H's diagonal is looked at, the rest of it not, and nothing moves."""
    return _cut(W, W.abs() * task.sums.sqrt(), task)


def by_pass(W: Tensor, task: Task) -> Pruned:
    """SparseGPT: all rows share one H⁻¹, since each input is decided on once, from left to right."""
    return single_pass(W, task.sums, task.asked, task.damping)


def by_surgeon(W: Tensor, task: Task) -> Pruned:
    """Exact layer-wise OBS: each row is traced to its end, and least squares fits what stays.

    With n:m those stay of each group that the trace takes last.
    """
    trace = trace_gram(W, task.sums, task.damping)
    if isinstance(task.asked, Pattern):
        mask = keep(_when(trace), task.asked, task.scope)
    else:
        mask = choose({"": W}, {"": trace}, task.asked, task.scope)[""]
    return refit_gram(W, task.sums, mask, task.damping), mask


METHODS: dict[str, Method] = {
    "random": Method(by_random, "nothing", "layer"),
    "magnitude": Method(by_magnitude, "nothing", "layer"),
    "wanda": Method(by_wanda, "norms", "row"),
    "sparsegpt": Method(by_pass, "gram", "layer", ("layer",)),
    "obs": Method(by_surgeon, "gram", "row"),
}


def refitted(method: Method) -> Method:
    """The same masks with the best weights there are for each, by least squares on the same inputs."""

    def prune(W: Tensor, task: Task) -> Pruned:
        sums = task.sums.diagonal() if method.needs == "norms" else task.sums
        mask = method.prune(W, task._replace(sums=sums))[1]
        return refit_gram(W, task.sums, mask, task.damping), mask

    return method._replace(prune=prune, needs="gram")


def chosen(method: str, refit: bool, scope: Scope | None) -> Method:
    """The method of a name, with another scope or the best update if that is asked.

    >>> chosen("wanda", True, None).needs
    'gram'
    """
    way = METHODS[method]
    if scope is not None and scope not in way.scopes:
        raise ValueError(f"scope must be {way.scopes[0]!r} for {method!r}, got {scope!r}")
    way = way if scope is None else way._replace(scope=scope)
    return refitted(way) if refit else way


def _cut(W: Tensor, scores: Tensor, task: Task) -> Pruned:
    mask = keep(zero_first(scores, W), task.asked, task.scope)
    return W.masked_fill(~mask, 0.0), mask


def _when(trace: Trace) -> Tensor:
    """At which step each weight goes, (out, in)."""
    order = trace.order
    steps = torch.arange(order.shape[1], device=order.device).expand_as(order)
    return torch.zeros_like(order).scatter_(1, order, steps)
