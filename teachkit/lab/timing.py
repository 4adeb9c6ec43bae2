"""How long something takes on this machine: the one clock, and layers that are dense, sparse or shrunk.

The *processor's* time (:func:`clock`) counts what this process computes: other programs do not
disturb it, so benchmarks compare by it. The *wall's* is what a user waits, also for other threads and
for a GPU: :func:`times` takes the least of several rounds, since other programs only ever add to it.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from math import ceil, inf
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from teachkit.core import checks, door
from teachkit.core.objective import eval_mode

SHORTEST = 2e-3  # seconds; what takes less is repeated, so that the clock's step does not count
Clock = Callable[[], float]


class BreakEven(NamedTuple):
    """Dense time over sparse time by sparsity, and the sparsity where it reaches 1, if it does."""

    sparsities: list[float]
    speedup: list[float]
    sparsity: float | None


def clock() -> Clock:
    """The process's own time, which other programs do not disturb, where it is fine enough."""
    fine = time.get_clock_info("process_time").resolution <= 1e-6
    return time.process_time if fine else time.perf_counter


def seconds(run: Callable[[], Any], repeats: int = 1, now: Clock | None = None) -> float:
    """The time of one run, a mean over repeats, by a clock; what runs on a GPU is waited for."""
    checks.whole("repeats", repeats, 1)
    now = now or clock()
    _wait()
    start = now()
    for _ in range(repeats):
        run()
    _wait()
    return (now() - start) / repeats


def _wait() -> None:
    if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()


def times(works: Mapping[str, Callable[[], Any]], rounds: int = 15) -> dict[str, float]:
    """Seconds on the wall that each work takes: the least over rounds, in which all take their turn.

    Each runs once before, uncounted, and as often in a round as the clock's step asks for.
    """
    checks.whole("rounds", rounds, 1)
    repeats = {}
    for name, work in works.items():
        work()
        once = seconds(work, now=time.perf_counter)
        repeats[name] = max(1, ceil(SHORTEST / max(once, 1e-7)))
    least = dict.fromkeys(works, inf)
    for _ in range(rounds):
        for name, work in works.items():
            least[name] = min(least[name], seconds(work, repeats[name], time.perf_counter))
    return least


def latencies(models: Mapping[str, nn.Module], x: Tensor, rounds: int = 15) -> dict[str, float]:
    """Seconds of one forward pass of each network on x, in evaluation mode without gradients."""
    with torch.no_grad(), ExitStack() as stack:
        for model in models.values():
            stack.enter_context(eval_mode(model))
        return times({name: partial(model, x) for name, model in models.items()}, rounds)


def csr(weight: Tensor, block: int | None = None) -> Tensor:
    """The weight (outputs, inputs) in compressed sparse rows, with indices of 4 bytes.

    With a ``block`` it is stored in squares of this side, those only that are not all zero.

    >>> csr(torch.tensor([[0.0, 2.0]])).col_indices()
    tensor([1], dtype=torch.int32)
    """
    if checks.finite("weight", weight).ndim != 2:
        raise ValueError(f"weight must have shape (outputs, inputs), got {tuple(weight.shape)}")
    side, w = 1 if block is None else checks.whole("block", block, 1), weight.detach()
    if any(size % side for size in w.shape):
        raise ValueError(f"weight must be a matrix of {side}x{side} blocks, got {tuple(w.shape)}")
    with warnings.catch_warnings(action="ignore"):  # torch calls its support a beta version
        sparse = w.to_sparse_csr() if block is None else w.to_sparse_bsr((side, side))
        at = sparse.crow_indices().int(), sparse.col_indices().int()
        return torch.sparse_compressed_tensor(
            *at, sparse.values(), sparse.shape, layout=sparse.layout
        )


def _product(weight: Tensor, x: Tensor) -> Tensor:
    return (weight @ x.T).T  # not x @ weight.T: the order in which torch is quick


def break_even(
    outputs: int,
    inputs: int,
    batch: int,
    sparsities: Sequence[float] = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99),
    *,
    block: int | None = None,
    rounds: int = 15,
) -> BreakEven:
    """From which sparsity on a sparse layer is faster than a dense one, on this machine.

    Random weights (outputs, inputs) with zeros in random places, in CSR; or with a ``block`` zeros in
    random squares of this side, which divides both, in blocked rows. The sparsities rise.
    """
    for name, number in {"outputs": outputs, "inputs": inputs, "batch": batch}.items():
        checks.whole(name, number, 1)
    side = 1 if block is None else checks.whole("block", block, 1)
    if outputs % side or inputs % side:
        raise ValueError(f"block must divide outputs {outputs} and inputs {inputs}, got {block}")
    dice = torch.Generator().manual_seed(0)
    draw = partial(torch.randn, generator=dice, dtype=torch.float32, device="cpu")
    weight, x = draw(outputs, inputs), draw(batch, inputs)
    order = torch.rand(outputs // side, inputs // side, generator=dice, device="cpu")
    order = order.repeat_interleave(side, 0).repeat_interleave(side, 1)
    works: dict[str, Callable[[], Any]] = {"dense": lambda: x @ weight.T}
    for s in sparsities:
        sparse = csr(weight * (order >= checks.fraction("sparsity", s)), block)
        works[f"{s}"] = partial(_product, sparse, x)
    taken = times(works, rounds)
    speedup = [taken["dense"] / taken[f"{s}"] for s in sparsities]
    return BreakEven(list(sparsities), speedup, crossing(sparsities, speedup))


def crossing(sparsities: Sequence[float], speedup: Sequence[float]) -> float | None:
    """The sparsity from which on the speedup stays at 1 or more, None if there is none.

    Between two sparsities the logarithm of the speedup is taken as linear.

    >>> crossing([0.5, 0.7, 0.9], [0.25, 0.5, 2.0])
    0.8
    """
    if len(sparsities) != len(speedup) or not speedup or min(speedup) <= 0:
        raise ValueError(
            f"crossing needs a positive speedup for each sparsity, got {list(speedup)}"
        )
    last = max((i for i, value in enumerate(speedup) if value < 1), default=-1)
    if last < 0:
        return sparsities[0]
    if last + 1 == len(speedup):
        return None
    around = slice(last, last + 2)
    return round(float(np.interp(0, np.log2(speedup[around]), sparsities[around])), 3)


door.hold(globals())
